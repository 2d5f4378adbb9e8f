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
