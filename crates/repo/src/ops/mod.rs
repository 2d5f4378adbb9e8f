//! What is done with a repository besides backing up. Everything here returns values; nothing prints.

pub mod diff;
pub mod find;
pub mod ls;
pub mod verify;
//! What is done with a repository beside backing up. Each operation that deletes is a plan first.

pub mod forget;
pub mod keys;
pub mod prune;
