//! Bodies on their way: handed on piece by piece, never gathered.
//!
//! An [`Upload`] remembers whether anything of it was taken, since only what was not taken can be sent again. A
//! [`Download`] ends the exchange: only when its last byte was handed on does the connection to the replica go back
//! to its pool and the request out of the count; dropped before that, the connection is closed. An error in either
//! ends the connection that the body goes to, so that half a body never looks like a whole one.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::finish::Finish;
use crate::watch::{Patience, Watch};

/// What goes wrong with a body.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body on its way to a replica.
#[derive(Debug, Clone)]
pub struct Upload(Option<Rc<Source>>);

#[derive(Debug)]
struct Source {
    body: RefCell<Incoming>,
    taken: Cell<bool>,
    ended: Cell<bool>,
    watch: Arc<Watch>,
    patience: Patience,
}

impl Upload {
    /// The body that a client sends.
    pub fn new(body: Incoming, watch: &Arc<Watch>, patience: Patience) -> Self {
        if body.is_end_stream() {
            return Self(None);
        }
        Self(Some(Rc::new(Source {
            body: RefCell::new(body),
            taken: Cell::new(false),
            ended: Cell::new(false),
            watch: Arc::clone(watch),
            patience,
        })))
    }

    /// Whether nothing of it is gone, so that it can be sent from its beginning.
    pub fn is_whole(&self) -> bool {
        self.0.as_ref().is_none_or(|source| !source.taken.get())
    }

    /// Whether there is nothing more of it.
    pub fn is_over(&self) -> bool {
        self.0.as_ref().is_none_or(|source| source.ended.get())
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(source) = &self.0 else {
            return Poll::Ready(None);
        };
        let mut body = source.body.borrow_mut();
        let polled = Pin::new(&mut *body).poll_frame(cx);
        match &polled {
            Poll::Pending => {
                source.watch.wants_body(&source.patience);
                return Poll::Pending;
            }
            Poll::Ready(None) => source.ended.set(true),
            Poll::Ready(Some(_)) => {
                source.taken.set(true);
                source.ended.set(body.is_end_stream());
            }
        }
        source.watch.has_body(&source.patience);
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|source| source.body.borrow().is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(
            || SizeHint::with_exact(0),
            |source| source.body.borrow().size_hint(),
        )
    }
}

/// An answer's body on its way to a client.
#[derive(Debug)]
pub struct Download {
    kind: Kind,
    watch: Option<(Arc<Watch>, Patience)>,
}

#[derive(Debug)]
enum Kind {
    Own(Option<Bytes>),
    Replica {
        body: Incoming,
        finish: Option<Box<Finish>>,
    },
}

impl Download {
    /// A body of the edge's own.
    pub fn own(text: String, watch: &Arc<Watch>, patience: Patience) -> Self {
        let text = (!text.is_empty()).then(|| Bytes::from(text));
        Self {
            kind: Kind::Own(text),
            watch: Some((Arc::clone(watch), patience)),
        }
    }

    /// Nothing, and the connection becomes a tunnel after it.
    pub const fn switch() -> Self {
        Self {
            kind: Kind::Own(None),
            watch: None,
        }
    }

    /// What a replica answers; `finish` ends the exchange.
    pub fn of_replica(
        body: Incoming,
        mut finish: Box<Finish>,
        watch: &Arc<Watch>,
        patience: Patience,
    ) -> Self {
        let finish = if body.is_end_stream() {
            finish.complete();
            None
        } else {
            Some(finish)
        };
        Self {
            kind: Kind::Replica { body, finish },
            watch: Some((Arc::clone(watch), patience)),
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let (body, finish) = match &mut this.kind {
            Kind::Own(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Replica { body, finish } => (body, finish),
        };
        let polled = Pin::new(&mut *body).poll_frame(cx);
        let Some((watch, patience)) = &this.watch else {
            return polled.map_err(Into::into);
        };
        match &polled {
            Poll::Pending => {
                watch.wants_answer_body(patience);
                return Poll::Pending;
            }
            Poll::Ready(Some(Err(_))) => {
                watch.set_aborted();
                if let Some(finish) = finish {
                    finish.cut();
                }
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(finish), Some(data)) = (finish.as_mut(), frame.data_ref()) {
                    finish.passed(data.len());
                }
                if body.is_end_stream()
                    && let Some(mut finish) = finish.take()
                {
                    finish.complete();
                }
            }
            Poll::Ready(None) => {
                if let Some(mut finish) = finish.take() {
                    finish.complete();
                }
            }
        }
        watch.has_answer_body();
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Own(bytes) => bytes.is_none(),
            Kind::Replica { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Own(bytes) => SizeHint::with_exact(
                bytes
                    .as_ref()
                    .map_or(0, |bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
            ),
            Kind::Replica { body, .. } => body.size_hint(),
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if let Some((watch, patience)) = &self.watch {
            watch.idle(patience);
        }
    }
}
