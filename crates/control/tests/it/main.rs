//! Recovery and drills with the real sample service: real processes, real HTTP, real repositories.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests are tests too; clippy knows that of #[test] alone"
)]
mod backup;
mod demo;
mod drill;
mod helper;
mod recover;
mod redis;
mod sample;
mod service;
