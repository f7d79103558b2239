//! Keeping both ends of a serial conversation on one CPU.
//!
//! With one request in flight, either the client or the server runs. Spread over
//! two CPUs of a virtual machine, each must wake a halted one per message: 80 µs
//! instead of 8 for a get, and the scheduler moves between the two by chance, for
//! seconds at a time and for each server on its own. On one CPU the figure is the
//! programs' and not the draw's.

use std::fs;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Stands for the calling thread.
const THIS_THREAD: Pid = Pid::from_raw(0);

/// The calling thread, those it starts, and all of one process; free again when
/// this is dropped.
#[derive(Debug)]
pub(crate) struct OneCpu {
    process: Option<u32>,
    before: CpuSet,
}

impl OneCpu {
    pub(crate) fn hold(process: Option<u32>) -> Result<Self> {
        let before = sched_getaffinity(THIS_THREAD).context("ask for the CPUs to run on")?;
        let held = Self { process, before };
        held.move_to(&last_of(&before)?)?;
        Ok(held)
    }

    fn move_to(&self, cpus: &CpuSet) -> Result<()> {
        sched_setaffinity(THIS_THREAD, cpus).context("choose this thread's CPUs")?;
        self.process.map_or(Ok(()), |pid| move_process(pid, cpus))
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        if let Err(error) = self.move_to(&self.before) {
            eprintln!("warning: runs stay on one CPU: {error:#}");
        }
    }
}

/// The last CPU, as interrupts tend to go to the first.
fn last_of(cpus: &CpuSet) -> Result<CpuSet> {
    let last = (0..CpuSet::count())
        .rev()
        .find(|cpu| cpus.is_set(*cpu) == Ok(true))
        .context("no CPU to run on")?;
    let mut one = CpuSet::new();
    one.set(last).context("choose a CPU")?;
    Ok(one)
}

fn move_process(pid: u32, cpus: &CpuSet) -> Result<()> {
    let path = format!("/proc/{pid}/task");
    for task in fs::read_dir(&path).with_context(|| format!("read {path}"))? {
        let name = task.with_context(|| format!("read {path}"))?.file_name();
        let tid = name.to_string_lossy().parse().context("read a task's id")?;
        match sched_setaffinity(Pid::from_raw(tid), cpus) {
            // The thread has ended since it was listed.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error).context("choose a server's CPUs"),
        }
    }
    Ok(())
}
