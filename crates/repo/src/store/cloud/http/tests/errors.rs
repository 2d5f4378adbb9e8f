//! The summary of an error: bounded, of one line, and nothing but its code and message.

use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_answer_becomes_one_short_line(text in "\\PC{0,80}|[<>/CodeMsag\":{}\\[\\]\n\r\t]{0,80}") {
        let short = summary(&text);
        prop_assert!(!short.contains(char::is_control), "{:?}", short);
        prop_assert!(short.chars().count() <= 2 * MESSAGE_LIMIT_CHARACTERS + 2);
    }

    #[test]
    fn code_and_message_of_an_error_come_through(code in "[A-Za-z]{1,30}", message in "[a-zA-Z .,'-]{1,300}", secret in "[0-9]{20}") {
        let cut: String = message.chars().take(MESSAGE_LIMIT_CHARACTERS).collect();
        let expected = format!("{code}: {cut}");
        let amazon = format!("<?xml version=\"1.0\"?>\n<Error><RequestId>{secret}</RequestId><Code>{code}</Code><Message>{message}</Message><StringToSign>{secret}</StringToSign></Error>");
        prop_assert_eq!(summary(&amazon), expected.clone());
        let quoted = serde_json::to_string(&message).unwrap();
        let google = format!("{{\"error\":{{\"code\":400,\"message\":{quoted},\"errors\":[{{\"reason\":\"{code}\",\"debug\":\"{secret}\"}}]}}}}");
        prop_assert_eq!(summary(&google), expected.clone());
        let token = format!("{{\"error\":\"{code}\",\"error_description\":{quoted},\"token\":\"{secret}\"}}");
        prop_assert_eq!(summary(&token), expected);
    }
}

#[test]
fn a_message_of_several_lines_is_its_first() {
    assert_eq!(summary("<Code>A</Code><Message>one\ntwo</Message>"), "A: one");
    assert_eq!(summary("<Code>A\nB</Code><Message>\ntwo</Message>"), "A");
    assert_eq!(summary("<Message>no code</Message>"), "", "without a code nobody knows what it is");
    assert_eq!(summary(r#"{"error":{"message":"only this"}}"#), ": only this");
    // Nothing of it reaches a terminal but letters.
    assert_eq!(summary("<Code>A\tB</Code><Message>\u{1b}[31mred\u{7}\r!</Message>"), "AB: [31mred!");
    let wide = format!("<Code>A</Code><Message>{}</Message>", "é".repeat(500));
    assert_eq!(summary(&wide).chars().count(), 3 + MESSAGE_LIMIT_CHARACTERS, "characters, not bytes");
}
