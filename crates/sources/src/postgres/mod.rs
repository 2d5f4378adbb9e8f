//! PostgreSQL: how we talk to a server, and what is made of that.

pub mod wire;
