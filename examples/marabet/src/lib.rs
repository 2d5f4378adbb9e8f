//! marabet
