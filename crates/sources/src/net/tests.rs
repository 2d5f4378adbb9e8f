//! Texts of addresses: what is encoded comes back, and nothing else is taken.

use super::*;
use proptest::prelude::*;

fn encoded(text: &str, plain: impl Fn(u8) -> bool, upper: bool) -> String {
    let digits = |byte: u8| if upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") };
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { digits(byte) }).collect()
}

proptest! {
    #[test]
    fn what_is_encoded_comes_back_whatever_was_encoded(text in "[^\0]{0,20}", some: u8, upper: bool) {
        let all = encoded(&text, |_| false, upper);
        prop_assert_eq!(percent_decoded(&all), Some(text.clone()));
        let few = encoded(&text, |byte| byte.is_ascii() && byte != b'%' && byte != some, upper);
        prop_assert_eq!(percent_decoded(&few), Some(text));
    }

    #[test]
    fn any_text_is_decoded_or_refused_and_never_longer_than_it_was(text in "[%0-9a-fA-F\\PC]{0,20}") {
        if let Some(decoded) = percent_decoded(&text) {
            prop_assert!(decoded.len() <= text.len() && !decoded.contains('\0'));
            prop_assert!(text.contains('%') || decoded == text);
        }
    }
}

#[test]
fn what_is_half_a_code_or_no_text_is_refused() {
    for wrong in
        ["%", "a%", "%4", "%4g", "%g4", "%%", "% 4", "%+4", "%é", "%00", "a%00b", "%ff", "%c3", "%c3%28"]
    {
        assert_eq!(percent_decoded(wrong), None, "{wrong}");
    }
    for (text, decoded) in
        [("", ""), ("a+b", "a+b"), ("%2B%25", "+%"), ("%c3%A9", "é"), ("é", "é"), ("%41%31", "A1")]
    {
        assert_eq!(percent_decoded(text).as_deref(), Some(decoded), "{text}");
    }
}
