//! Recovery and drills with the real sample service: real processes, real HTTP, real repositories.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests are tests too; clippy knows that of #[test] alone"
)]
mod backup;
mod demo;
mod drill;
mod drill_parts;
mod helper;
mod postgres;
mod postgres_dump;
mod recover;
mod recover_steps;
mod redis;
mod sample;
mod service;
