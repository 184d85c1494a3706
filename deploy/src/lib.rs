//! From wish to running cluster. An inventory says what should be; `facts` reads what is; `plan`
//! is the difference, computed without touching anything; `procedures` lists the phases that carry
//! it out; `execute` walks them, host by host, over `ssh`, which is the only place that runs
//! anything on a host. Recovery from a run that broke off is to run it again.
//!
//! Nothing here prints, asks or exits, and nothing can tell a laboratory from production. To this
//! crate a node is a file, a process and a metrics page.

pub mod audit;
pub mod digest;
pub mod error;
pub mod execute;
pub mod facts;
pub mod fleet;
pub mod guard;
pub mod live;
pub mod lock;
pub mod pages;
mod phases;
pub mod plan;
pub mod preflight;
pub mod procedures;
pub mod release;
pub mod render;
pub mod ssh;
pub mod stamp;
pub mod supervisor;

pub use error::{Error, Kind, Result};
