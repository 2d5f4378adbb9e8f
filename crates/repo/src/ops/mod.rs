//! What is done with a repository beside backing up. Each operation that deletes is a plan first.

pub mod forget;
pub mod keys;
pub mod prune;
