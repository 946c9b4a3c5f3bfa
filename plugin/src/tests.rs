//! Tests of the commands, in this process, against an engine that is played.

pub mod fixtures;
pub mod played;

mod asking;
mod conventions;
mod environments;
mod streams;
