//! What a runner promises, with real processes.

mod ending;
mod hiding;
mod leasing;
mod lost;
mod output;
mod running;
mod starting;
mod support;
