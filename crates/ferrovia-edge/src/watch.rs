//! Deadlines without a timer each: every connection notes by when something must happen, and its worker looks at all
//! of them twice a second.
//!
//! A request costs a few stores instead of timers that are made and cancelled; a deadline is met half a second late at
//! most, which none of them minds.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::Notify;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds since this process began to count, from 1.
pub fn now_ms() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
}

/// A moment by which something must happen, if any.
#[derive(Debug, Default)]
struct Deadline(AtomicU64);

impl Deadline {
    fn set_in(&self, ms: u64) {
        self.0.store(now_ms() + ms, Ordering::Relaxed);
    }

    /// Sets it unless it is set.
    fn begin_in(&self, ms: u64) {
        if self.0.load(Ordering::Relaxed) == 0 {
            self.set_in(ms);
        }
    }

    fn clear(&self) {
        if self.0.load(Ordering::Relaxed) != 0 {
            self.0.store(0, Ordering::Relaxed);
        }
    }

    fn is_past(&self, now: u64) -> bool {
        let at = self.0.load(Ordering::Relaxed);
        at != 0 && at <= now
    }
}

/// What a client's connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Between two requests.
    Idle = 0,
    /// A head has begun to come.
    Head = 1,
    /// A request is being served.
    Serving = 2,
    /// It has become a tunnel.
    Tunnel = 3,
}

/// Why a connection is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kick {
    /// Nothing.
    None = 0,
    /// End it after what it is doing.
    Finish = 1,
    /// End it now.
    Abort = 2,
}

/// The deadlines and the state of one client connection. Shared with its socket, hence the atomics; all of them are
/// touched by one thread only.
#[derive(Debug, Default)]
pub struct Watch {
    phase: AtomicU8,
    /// The client must send something.
    reading: Deadline,
    /// The client must take something.
    writing: Deadline,
    /// The application must send something.
    answering: Deadline,
    /// Whether more of a request's body is wanted.
    wants_body: AtomicBool,
    kick: AtomicU8,
    kicked: Notify,
    late: Notify,
    is_late: AtomicBool,
    waits_for_head: AtomicBool,
    aborted: AtomicBool,
    unread: AtomicBool,
}

/// How long things may take, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From the first byte of a request's head to its last.
    pub head_ms: u64,
    /// Between two requests of a connection.
    pub idle_ms: u64,
    /// Without a byte of a request's body, or without the client taking a byte of the answer.
    pub client_ms: u64,
    /// From the last byte of a request that was handed on to the answer's head, and without a byte of its body.
    pub answer_ms: u64,
    /// Until a sleeping service takes a request.
    pub wake_ms: u64,
}

impl Watch {
    /// A connection that was just accepted: its first head is awaited.
    pub fn accepted(&self, patience: &Patience) {
        self.set_phase(Phase::Head);
        self.reading.set_in(patience.head_ms);
    }

    /// What the connection does.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Serving,
            _ => Phase::Tunnel,
        }
    }

    fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Bytes came from the client.
    pub fn has_read(&self, patience: &Patience) {
        match self.phase() {
            Phase::Idle => {
                self.set_phase(Phase::Head);
                self.reading.set_in(patience.head_ms);
            }
            // Whether they are enough, the next read shows.
            Phase::Serving => self.reading.clear(),
            Phase::Head | Phase::Tunnel => {}
        }
    }

    /// The client sends nothing for now.
    pub fn read_blocked(&self, patience: &Patience) {
        if self.wants_body.load(Ordering::Relaxed) {
            self.reading.begin_in(patience.client_ms);
        }
    }

    /// The client takes nothing more for now.
    pub fn write_blocked(&self, patience: &Patience) {
        self.writing.begin_in(patience.client_ms);
    }

    /// The client took something.
    pub fn has_written(&self) {
        self.writing.clear();
    }

    /// A head is complete.
    pub fn serving(&self) {
        self.set_phase(Phase::Serving);
        self.wants_body.store(false, Ordering::Relaxed);
        self.reading.clear();
    }

    /// The next piece of a request's body is waited for.
    pub fn wants_body(&self, patience: &Patience) {
        self.wants_body.store(true, Ordering::Relaxed);
        self.reading.begin_in(patience.client_ms);
    }

    /// A piece of a request's body came and is handed on, or there is none left.
    pub fn has_body(&self, patience: &Patience) {
        self.wants_body.store(false, Ordering::Relaxed);
        self.reading.clear();
        if self.waits_for_head.load(Ordering::Relaxed) {
            self.answering.set_in(patience.answer_ms);
        }
    }

    /// The answer's head is waited for.
    pub fn wants_answer(&self, patience: &Patience) {
        self.is_late.store(false, Ordering::Relaxed);
        self.waits_for_head.store(true, Ordering::Relaxed);
        self.answering.set_in(patience.answer_ms);
    }

    /// The answer's head came, or is given up.
    pub fn has_answer(&self) {
        self.waits_for_head.store(false, Ordering::Relaxed);
        self.answering.clear();
    }

    /// The next piece of the answer's body is waited for.
    pub fn wants_answer_body(&self, patience: &Patience) {
        self.answering.begin_in(patience.answer_ms);
    }

    /// A piece of the answer's body came.
    pub fn has_answer_body(&self) {
        self.answering.clear();
    }

    /// A request was answered.
    pub fn idle(&self, patience: &Patience) {
        self.answering.clear();
        self.set_phase(Phase::Idle);
        self.reading.set_in(patience.idle_ms);
    }

    /// The connection has become a tunnel.
    pub fn tunnel(&self) {
        self.set_phase(Phase::Tunnel);
        self.reading.clear();
        self.writing.clear();
        self.answering.clear();
    }

    /// By when an idle connection is closed, for choosing the one that waits longest.
    pub fn idle_until(&self) -> Option<u64> {
        (self.phase() == Phase::Idle).then(|| self.reading.0.load(Ordering::Relaxed))
    }

    /// Whether the body of a request was left unread: closing at once would lose the answer.
    pub fn set_unread(&self, unread: bool) {
        self.unread.store(unread, Ordering::Relaxed);
    }

    /// See [`Watch::set_unread`].
    pub fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// The answer was cut off: the connection must not end as if it were complete.
    pub fn set_aborted(&self) {
        self.aborted.store(true, Ordering::Relaxed);
    }

    /// See [`Watch::set_aborted`].
    pub fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Relaxed)
    }

    /// Looks at the deadlines.
    pub fn look(&self, now: u64) {
        if self.reading.is_past(now) || self.writing.is_past(now) {
            self.set_kick(Kick::Abort);
        } else if self.answering.is_past(now) {
            if self.waits_for_head.load(Ordering::Relaxed) {
                self.answering.clear();
                self.is_late.store(true, Ordering::Relaxed);
                self.late.notify_one();
            } else {
                self.set_kick(Kick::Abort);
            }
        }
    }

    /// Tells the connection to end.
    pub fn set_kick(&self, kick: Kick) {
        self.kick.fetch_max(kick as u8, Ordering::Relaxed);
        self.kicked.notify_one();
    }

    /// Waits until the connection is told to end.
    pub async fn kicked(&self) -> Kick {
        loop {
            self.kicked.notified().await;
            match self.kick.load(Ordering::Relaxed) {
                0 => {}
                1 => return Kick::Finish,
                _ => return Kick::Abort,
            }
        }
    }

    /// Waits until the answer's head is late.
    pub async fn late(&self) {
        while !self.is_late.load(Ordering::Relaxed) {
            self.late.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        head_ms: 10,
        idle_ms: 20,
        client_ms: 30,
        answer_ms: 40,
        wake_ms: 50,
    };

    fn kick(watch: &Watch) -> u8 {
        watch.kick.load(Ordering::Relaxed)
    }

    #[test]
    fn each_phase_has_its_deadline() {
        let watch = Watch::default();
        watch.accepted(&PATIENCE);
        watch.look(now_ms());
        assert_eq!(kick(&watch), 0);
        watch.look(now_ms() + 11);
        assert_eq!(kick(&watch), 2, "a head that does not come");

        let watch = Watch::default();
        watch.accepted(&PATIENCE);
        watch.serving();
        watch.look(now_ms() + 1_000);
        assert_eq!(kick(&watch), 0, "serving has no end of its own");
        watch.wants_body(&PATIENCE);
        watch.wants_body(&PATIENCE);
        watch.look(now_ms() + 31);
        assert_eq!(kick(&watch), 2, "a body that stops");

        let watch = Watch::default();
        watch.idle(&PATIENCE);
        watch.look(now_ms() + 15);
        assert_eq!(kick(&watch), 0);
        watch.has_read(&PATIENCE);
        watch.look(now_ms() + 11);
        assert_eq!(kick(&watch), 2, "a second head that does not come");

        let watch = Watch::default();
        watch.serving();
        watch.wants_answer(&PATIENCE);
        watch.look(now_ms() + 41);
        assert_eq!(kick(&watch), 0, "a late head is answered, not cut");
        watch.has_answer();
        watch.wants_answer_body(&PATIENCE);
        watch.look(now_ms() + 41);
        assert_eq!(kick(&watch), 2, "an answer that stops is cut");
    }
}
