//! Words, numbers and sentences in each language. One file per language with the same keys; a key that one of them
//! lacks does not compile.

mod english;
mod number;
mod portuguese;
mod sentence;

pub(super) use number::percent;
pub(super) use sentence::{reason, repositories, step_label, step_name};

/// A language of people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Language {
    /// English.
    English,
    /// Portuguese, in words that are understood in Brazil and in Portugal.
    Portuguese,
}

impl Language {
    /// Every language.
    pub const ALL: [Self; 2] = [Self::English, Self::Portuguese];

    /// Its tag (BCP 47): `en`, `pt`.
    pub fn tag(self) -> &'static str {
        self.texts().tag
    }

    pub(super) fn texts(self) -> &'static Texts {
        self.pick(&english::TEXTS, &portuguese::TEXTS)
    }

    /// What is in this language, of something that each has.
    pub(super) fn pick<T>(self, english: T, portuguese: T) -> T {
        match self {
            Self::English => english,
            Self::Portuguese => portuguese,
        }
    }
}

/// Puts `values` in the place of their `{name}` in a text. A value is never searched for further names.
pub(super) fn fill(text: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let (before, from) = rest.split_at(open);
        filled.push_str(before);
        let value = from.find('}').and_then(|close| {
            let name = from.get(1..close)?;
            let value = values.iter().find(|(key, _)| *key == name)?.1;
            Some((value, from.get(close + 1..)?))
        });
        if let Some((value, after)) = value {
            filled.push_str(value);
            rest = after;
        } else {
            filled.push('{');
            rest = from.get(1..).unwrap_or_default();
        }
    }
    filled.push_str(rest);
    filled
}

macro_rules! texts {
    ($($key:ident)*) => {
        /// Every text. `{names}` in braces are filled in.
        #[derive(Debug)]
        pub(super) struct Texts {
            $(pub(super) $key: &'static str,)*
        }

        #[cfg(test)]
        impl Texts {
            /// Each key with its text.
            fn all(&self) -> Vec<(&'static str, &'static str)> {
                vec![$((stringify!($key), self.$key)),*]
            }
        }
    };
}

texts! {
    tag decimal thousands
    drill_report page_title started drill_id
    repositories_read repositories_unread
    verdict_green verdict_red verdict_broken
    green_means red_means broken_means
    why_not_green
    fact_back fact_lost fact_checks fact_controls count_of
    waterfall_title waterfall_intro waterfall_intro_failed waterfall_dominates waterfall_none
    column_step column_starts column_takes column_share total
    step_detect step_decide step_fetch step_replay step_start step_check step_cut_over step_first_write
    components_title components_none missing_component
    rto rpo_counted rpo_worst objective not_measured met missed bar_text
    word_kind word_tier word_snapshot word_size word_rows word_markers no_snapshot from_to markers_lost_of
    checks_none checks_of column_check column_outcome column_expected column_found column_detail
    passed failed not_run
    controls_title controls_intro controls_none column_control column_feeds feeds_broken feeds_sound
    accepted as_expected wrong
    not_proven_title not_proven_intro
    limit_once limit_place limit_scenario limit_load limit_people
    environment_title word_version word_manifest word_repository word_key word_system word_cpus word_memory
    repeat_title repeat_intro footer
    short_component short_of short_worst short_lost short_checks
    failure_hint reason_failed
    reason_no_negative reason_no_positive reason_control_malformed reason_control_accepted reason_control_other
    reason_control_refused reason_control_misjudged reason_nothing_required reason_component_missing
    reason_component_twice reason_no_evidence the_service
    evidence_waterfall evidence_checks evidence_rto evidence_markers evidence_worst evidence_rows evidence_snapshot
    reason_rto reason_rpo_counted reason_rpo_worst reason_check_failed reason_check_not_run reason_empty_bytes
    reason_empty_rows reason_rto_beyond reason_lost_beyond
}

#[cfg(test)]
mod tests;
