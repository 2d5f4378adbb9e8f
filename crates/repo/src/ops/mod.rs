//! What is done with a repository besides backing up and restoring. Everything here returns values and prints nothing;
//! each operation that deletes is a plan first.

pub mod copy;
pub mod diff;
pub mod find;
pub mod forget;
pub mod keys;
pub mod ls;
pub mod prune;
pub mod renew;
pub mod repair;
pub mod verify;
