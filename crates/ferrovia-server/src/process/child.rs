//! `ferroviad child`: sets what a process must be born with, then becomes the program.
//!
//! Session, control groups, user, priority and limits must be set in the child before its program runs. The usual
//! way, a hook between fork and exec, needs unsafe code; executing ourselves in between does not.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// What the program is born with.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ChildArgs {
    /// In a session of its own, so that it outlives its parent's terminal
    #[arg(long)]
    pub new_session: bool,
    /// In this control group: a directory with a `cgroup.procs` file; may be repeated
    #[arg(long, value_name = "DIR")]
    pub cgroup: Vec<PathBuf>,
    /// As this user
    #[arg(long, value_name = "UID")]
    pub uid: Option<u32>,
    /// As this group
    #[arg(long, value_name = "GID")]
    pub gid: Option<u32>,
    /// Lower priority of the processor: 0 to 19
    #[arg(long, value_name = "N")]
    pub nice: Option<i32>,
    /// Preference of the kernel when memory is out: -1000 to 1000
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub oom_score_adj: Option<i32>,
    /// Program and arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "PROGRAM"
    )]
    pub program: Vec<std::ffi::OsString>,
}

/// Does not return unless something failed.
pub fn run(args: &ChildArgs) -> io::Error {
    match prepare(args) {
        Ok(mut command) => command.exec(),
        Err(error) => error,
    }
}

fn prepare(args: &ChildArgs) -> io::Result<Command> {
    for group in &args.cgroup {
        std::fs::write(group.join("cgroup.procs"), "0").map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot enter the control group `{}`: {error}", group.display()),
            )
        })?;
    }
    if let Some(score) = args.oom_score_adj {
        std::fs::write("/proc/self/oom_score_adj", score.to_string())?;
    }
    if let Some(nice) = args.nice {
        rustix::process::nice(nice)?;
    }
    if args.new_session {
        // Fails only for the leader of a process group, which is then already apart from its parent.
        let _ = rustix::process::setsid();
    }
    let (program, arguments) = args
        .program
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no program was given"))?;
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some(gid) = args.gid {
        command.gid(gid);
    }
    if let Some(uid) = args.uid {
        command.uid(uid);
    }
    Ok(command)
}
