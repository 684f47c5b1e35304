//! Schedules, queues and workers.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use ktrdr_client::{CatchUp, Overlap, ScheduleId, Timestamp, WorkerId};

use super::filter::later;

/// What to do with workers; without it, they are listed.
#[derive(Debug, Subcommand)]
pub enum WorkersCommand {
    /// Let workers finish what they run and take nothing more
    Drain {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<WorkerId>,
    },
    /// Let drained workers go on
    Undrain {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<WorkerId>,
    },
}

/// What to do with queues; without it, they are listed.
#[derive(Debug, Subcommand)]
pub enum QueuesCommand {
    /// Let no operation of a worker type start; what runs goes on
    Pause {
        /// The worker type, by its name or its domain
        worker_type: String,
        /// Go on by itself at this time (RFC 3339), or after so long (30min); without it, `resume` does
        #[arg(long, value_name = "TIME", value_parser = later)]
        until: Option<Timestamp>,
    },
    /// Let operations of a worker type start again
    Resume {
        /// The worker type, by its name or its domain
        worker_type: String,
    },
}

/// What to do with schedules; without it, they are listed.
#[derive(Debug, Subcommand)]
pub enum SchedulesCommand {
    /// List all schedules
    List,
    /// Show one schedule, with its next slots
    Show {
        /// Its id
        id: ScheduleId,
    },
    /// Make a schedule, or change the one with this id
    #[command(
        after_help = "Examples:\n  ktrdr schedules put nightly training symbol=GOOG timeframe=1d epochs=20 --cron \"30 2 * * *\" --time-zone Europe/Berlin\n  ktrdr schedules put nightly -f schedule.json"
    )]
    Put(PutArgs),
    /// Let schedules start nothing by themselves
    Pause {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<ScheduleId>,
    },
    /// Let paused schedules go on
    Resume {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<ScheduleId>,
    },
    /// Start an operation of a schedule now
    Run {
        /// Its id
        id: ScheduleId,
        /// Follow the operation until it ends
        #[arg(long)]
        wait: bool,
    },
    /// Delete schedules; their operations stay
    Delete {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<ScheduleId>,
    },
}

/// A schedule. What is not given comes from the file; without a file, the usual is taken.
#[derive(Debug, clap::Args)]
pub struct PutArgs {
    /// Its id
    pub id: ScheduleId,
    /// The domain, as `ktrdr types` lists it
    pub domain: Option<String>,
    /// Parameters: a JSON object, or key=value, where the value is JSON or a text
    pub parameters: Vec<String>,
    /// Read the schedule from this file (`-`: standard input), as `ktrdr schedules show --json` prints it
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// When: minute, hour, day of the month, month, day of the week; with six fields, seconds first
    #[arg(long)]
    pub cron: Option<String>,
    /// The IANA name of the time zone [usual: UTC]
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Option<String>,
    /// What happens at a slot while the last operation has not ended [usual: skip]
    #[arg(long, value_enum)]
    pub overlap: Option<OverlapWord>,
    /// What happens to slots that nobody could start in time [usual: skip]
    #[arg(long, value_enum)]
    pub catch_up: Option<CatchUpWord>,
    /// Start nothing by itself until `ktrdr schedules resume`
    #[arg(long)]
    pub paused: bool,
}

/// [`Overlap`] on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum OverlapWord {
    /// The slot is left out
    Skip,
    /// The slot waits until the last operation has ended
    Queue,
    /// The last operation is cancelled
    Replace,
}

/// [`CatchUp`] on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum CatchUpWord {
    /// They are left out
    Skip,
    /// The last one of them is started
    Once,
}

impl From<OverlapWord> for Overlap {
    fn from(word: OverlapWord) -> Self {
        match word {
            OverlapWord::Skip => Self::Skip,
            OverlapWord::Queue => Self::Queue,
            OverlapWord::Replace => Self::Replace,
        }
    }
}

impl From<CatchUpWord> for CatchUp {
    fn from(word: CatchUpWord) -> Self {
        match word {
            CatchUpWord::Skip => Self::Skip,
            CatchUpWord::Once => Self::Once,
        }
    }
}
