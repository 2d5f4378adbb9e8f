//! Text that comes from data, made harmless before it is shown anywhere.

/// Replaces what could move the cursor, change colours or turn the direction of writing: control characters (line
/// breaks too) and the bidirectional controls of Unicode.
pub(super) fn clean(text: &str) -> String {
    let is_hostile = |c: char| {
        c.is_control()
            || matches!(c, '\u{061c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if is_hostile(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn what_steers_a_terminal_or_the_direction_is_replaced() {
        assert_eq!(clean("a\u{1b}[31mb\r\nc"), "a\u{fffd}[31mb\u{fffd}\u{fffd}c");
        assert_eq!(clean("x\u{202e}y\u{2066}z"), "x\u{fffd}y\u{fffd}z");
        assert_eq!(clean("coração <b> 重"), "coração <b> 重");
    }
}
