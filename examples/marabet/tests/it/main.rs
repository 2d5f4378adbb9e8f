//! The sample service as a user meets it: the real program, real HTTP, real signals.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests are tests too; clippy knows that of #[test] alone"
)]
mod crash;
mod health;
mod http;
mod load;
mod service;
mod stop;
