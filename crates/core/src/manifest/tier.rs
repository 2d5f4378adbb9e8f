//! Tiers: how much a component may lose, and how long its return may take.

use crate::units::Duration;
use std::fmt;

/// How important a component is. The order is the order of recovery, most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// RTO 15 minutes, RPO 5 minutes.
    Critical,
    /// RTO 60 minutes, RPO 15 minutes.
    High,
    /// RTO 4 hours, RPO 1 hour.
    Medium,
    /// RTO 24 hours, RPO 6 hours.
    Low,
}

/// What is promised for a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Objectives {
    /// Recovery time objective: the longest time from loss to service.
    pub rto: Duration,
    /// Recovery point objective: the longest stretch of time whose writes may be lost.
    pub rpo: Duration,
}

impl Tier {
    /// All tiers, most important first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Medium, Self::Low];
    /// The names of [`Tier::ALL`].
    pub const NAMES: [&'static str; 4] = ["critical", "high", "medium", "low"];

    /// The tier of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.as_str() == name)
    }

    /// The name in the manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }

    /// The objectives that hold unless the manifest overrides them.
    pub fn default_objectives(self) -> Objectives {
        let (rto, rpo) = match self {
            Self::Critical => (15, 5),
            Self::High => (60, 15),
            Self::Medium => (240, 60),
            Self::Low => (1440, 360),
        };
        Objectives { rto: Duration::from_minutes(rto), rpo: Duration::from_minutes(rpo) }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tiers_correspond() {
        assert_eq!(Tier::ALL.map(Tier::as_str), Tier::NAMES);
        assert_eq!(Tier::from_name("low"), Some(Tier::Low));
        assert_eq!(Tier::from_name("Low"), None);
        assert!(Tier::Critical < Tier::Low);
    }

    #[test]
    fn objectives_are_those_promised() {
        let minutes = |tier: Tier| {
            let objectives = tier.default_objectives();
            (objectives.rto.as_seconds() / 60, objectives.rpo.as_seconds() / 60)
        };
        assert_eq!(Tier::ALL.map(minutes), [(15, 5), (60, 15), (240, 60), (1440, 360)]);
    }
}
