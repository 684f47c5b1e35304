//! CPU time and memory of processes.

use std::time::Instant;

use crate::process::cpu_seconds;

/// Resident memory of a process in bytes.
pub(super) fn resident(pid: u32) -> f64 {
    status(pid, "VmRSS:")
}

/// Anonymous memory of a process in bytes.
pub(super) fn anonymous(pid: u32) -> f64 {
    status(pid, "RssAnon:")
}

fn status(pid: u32, name: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_default();
    line.trim()
        .trim_end_matches(" kB")
        .parse::<f64>()
        .unwrap_or_default()
        * 1024.0
}

/// CPU time of several processes over a span of time.
pub(super) struct Spent {
    started: Instant,
    before: Vec<(&'static str, u32, f64)>,
}

impl Spent {
    pub(super) fn begin(processes: &[(&'static str, u32)]) -> Self {
        let before = processes
            .iter()
            .map(|(name, pid)| (*name, *pid, cpu_seconds(*pid)))
            .collect();
        Self {
            started: Instant::now(),
            before,
        }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// CPU seconds of all of them.
    pub(super) fn cpu(&self) -> f64 {
        self.before
            .iter()
            .map(|(_, pid, before)| cpu_seconds(*pid) - before)
            .sum()
    }

    /// CPU seconds of the process with this name.
    pub(super) fn cpu_of(&self, name: &str) -> f64 {
        let mut own = self.before.iter().filter(|(other, ..)| *other == name);
        own.next()
            .map_or(f64::NAN, |(_, pid, before)| cpu_seconds(*pid) - before)
    }

    /// `CPU µs each: nats 20, backend 9, worker 25` for `count` of something.
    pub(super) fn each(&self, count: f64) -> String {
        let each = |pid: u32, before: f64| (cpu_seconds(pid) - before) / count * 1e6;
        let parts: Vec<String> = self
            .before
            .iter()
            .map(|(name, pid, before)| format!("{name} {:.1}", each(*pid, *before)))
            .collect();
        format!("CPU µs each: {}", parts.join(", "))
    }
}

/// The load average of the machine: it shows whether anything else runs.
pub(super) fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
