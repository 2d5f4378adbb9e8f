use super::sample;
use retoma_core::render::Language;
use retoma_core::render::terminal::{Plain, Role, Style, drill};

#[test]
fn green_at_80_columns() {
    insta::assert_snapshot!(drill(&sample::green(), 80, Language::English, &Plain));
}

#[test]
fn green_at_120_columns() {
    insta::assert_snapshot!(drill(&sample::green(), 120, Language::English, &Plain));
}

#[test]
fn red_at_80_columns() {
    insta::assert_snapshot!(drill(&sample::red(), 80, Language::English, &Plain));
}

#[test]
fn failed_at_80_columns() {
    insta::assert_snapshot!(drill(&sample::failed(), 80, Language::English, &Plain));
}

#[test]
fn broken_in_portuguese_at_80_columns() {
    insta::assert_snapshot!(drill(&sample::broken(), 80, Language::Portuguese, &Plain));
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for report in [sample::green(), sample::red(), sample::broken()] {
        for language in Language::ALL {
            for width in [80, 100, 120, 200] {
                let text = drill(&report, width, language, &Plain);
                for line in text.lines() {
                    assert!(line.chars().count() <= width, "{width}: `{line}`");
                }
            }
        }
    }
}

#[test]
fn data_cannot_steer_the_terminal() {
    let text = drill(&sample::hostile(), 80, Language::English, &Plain);
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    assert!(!text.contains('\u{202e}'));
}

/// Wraps every piece, so that what is painted can be told from what is not.
struct Marked;

impl Style for Marked {
    fn paint(&self, role: Role, text: &str) -> String {
        let (open, close) = if role == Role::LongestBar { ('[', ']') } else { ('\u{1}', '\u{2}') };
        format!("{open}{text}{close}")
    }
}

#[test]
fn looks_do_not_move_letters() {
    let plain = drill(&sample::green(), 80, Language::English, &Plain);
    let marked = drill(&sample::green(), 80, Language::English, &Marked);
    let stripped: String = marked.chars().filter(|c| !"[]\u{1}\u{2}".contains(*c)).collect();
    let trimmed = |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    assert_eq!(trimmed(&stripped), trimmed(&plain));
    assert_eq!(marked.matches("[#").count(), 1, "one longest bar");
}

#[test]
fn lost_repositories_and_those_that_served_are_named_in_both_languages() {
    let cases = [
        (&["far"][..], "Lost repositories: local. The data came from far.", "Os dados vieram de far."),
        (&["far", "third"], "The data came from far, third.", "Os dados vieram de far, third."),
        (&[], "Nothing came from the others.", "Repositórios perdidos: local. Nada veio dos outros."),
    ];
    for (read, english, portuguese) in cases {
        let report = sample::lost_repository(read);
        for (language, expected) in [(Language::English, english), (Language::Portuguese, portuguese)] {
            assert!(drill(&report, 120, language, &Plain).contains(expected));
            assert!(retoma_core::render::report::page(&report, language).contains(expected));
        }
    }
    assert!(!drill(&sample::green(), 80, Language::English, &Plain).contains("Lost repositories"));
}
