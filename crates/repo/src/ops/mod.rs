//! What is done with a repository besides backing up. Everything here returns values; nothing prints.

pub mod diff;
pub mod find;
pub mod ls;
pub mod verify;
