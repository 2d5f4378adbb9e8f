//! What a server writes, made by another hand than what reads it: lengths, strings, LZF, listpacks, sets of numbers.

/// A number in one of the forms in which it fits; `wide` chooses.
pub(super) fn length(number: u64, wide: u8) -> Vec<u8> {
    let mut forms = Vec::new();
    if let Ok(small) = u8::try_from(number)
        && small < 64
    {
        forms.push(vec![small]);
    }
    if let Ok(middle) = u16::try_from(number)
        && middle < 1 << 14
    {
        forms.push((middle | 0x4000).to_be_bytes().to_vec());
    }
    if let Ok(large) = u32::try_from(number) {
        forms.push([&[0x80][..], &large.to_be_bytes()].concat());
    }
    forms.push([&[0x81][..], &number.to_be_bytes()].concat());
    forms.swap_remove(usize::from(wide) % forms.len())
}

/// The integer that `text` is, written as the server would write it.
fn integer(text: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}

/// A string as it is, as an integer, or packed; `form` chooses among those that are possible.
pub(super) fn string(text: &[u8], form: u8) -> Vec<u8> {
    let mut forms = vec![[&length(text.len() as u64, form / 8)[..], text].concat()];
    if let Some(number) = integer(text) {
        if let Ok(number) = i8::try_from(number) {
            forms.push([&[0xc0][..], &number.to_le_bytes()].concat());
        }
        if let Ok(number) = i16::try_from(number) {
            forms.push([&[0xc1][..], &number.to_le_bytes()].concat());
        }
        if let Ok(number) = i32::try_from(number) {
            forms.push([&[0xc2][..], &number.to_le_bytes()].concat());
        }
    }
    if (1..=2000).contains(&text.len()) {
        let packed = lzf(text);
        let lengths = [length(packed.len() as u64, form / 8), length(text.len() as u64, form / 16)].concat();
        forms.push([&[0xc3][..], &lengths, &packed].concat());
    }
    forms.swap_remove(usize::from(form) % forms.len())
}

/// LZF in the plainest way: the longest match that a search finds, else one byte.
pub(super) fn lzf(text: &[u8]) -> Vec<u8> {
    let (mut packed, mut literals, mut at) = (Vec::new(), Vec::new(), 0);
    let flush = |literals: &mut Vec<u8>, packed: &mut Vec<u8>| {
        for run in literals.chunks(32) {
            packed.push(u8::try_from(run.len() - 1).unwrap());
            packed.extend(run);
        }
        literals.clear();
    };
    while at < text.len() {
        let matching = |from: usize| {
            (0..264).take_while(|n| at + n < text.len() && text[from + n] == text[at + n]).count()
        };
        let best = (at.saturating_sub(8192)..at).map(|from| (matching(from), from)).max();
        let Some((run, from)) = best.filter(|(run, _)| *run >= 3) else {
            literals.push(text[at]);
            at += 1;
            continue;
        };
        flush(&mut literals, &mut packed);
        let (back, short) = (at - from - 1, run - 2);
        let high = u8::try_from(back >> 8).unwrap();
        if short < 7 {
            packed.push(u8::try_from(short << 5).unwrap() | high);
        } else {
            packed.extend([0xe0 | high, u8::try_from(short - 7).unwrap()]);
        }
        packed.push(u8::try_from(back & 0xff).unwrap());
        at += run;
    }
    flush(&mut literals, &mut packed);
    packed
}

/// One element of a listpack with its length behind it; numbers in any form in which they fit.
fn entry(text: &[u8], form: u8) -> Vec<u8> {
    let bytes = u32::try_from(text.len()).unwrap();
    let mut forms = vec![[&[0xf0][..], &bytes.to_le_bytes(), text].concat()];
    if bytes < 64 {
        forms.push([&[0x80 | u8::try_from(bytes).unwrap()][..], text].concat());
    }
    if bytes < 4096 {
        let [high, low] = u16::try_from(bytes).unwrap().to_be_bytes();
        forms.push([&[0xe0 | high, low][..], text].concat());
    }
    if let Some(number) = integer(text) {
        if (0..128).contains(&number) {
            forms.push(vec![u8::try_from(number).unwrap()]);
        }
        if (-4096..4096).contains(&number) {
            let [high, low] = u16::try_from(number & 0x1fff).unwrap().to_be_bytes();
            forms.push(vec![0xc0 | high, low]);
        }
        if let Ok(number) = i16::try_from(number) {
            forms.push([&[0xf1][..], &number.to_le_bytes()].concat());
        }
        if (-(1 << 23)..1 << 23).contains(&number) {
            forms.push([&[0xf2][..], &number.to_le_bytes()[..3]].concat());
        }
        if let Ok(number) = i32::try_from(number) {
            forms.push([&[0xf3][..], &number.to_le_bytes()].concat());
        }
        forms.push([&[0xf4][..], &number.to_le_bytes()].concat());
    }
    let mut entry = forms.swap_remove(usize::from(form) % forms.len());
    let length = entry.len();
    // Seven bits each, the highest first; all but the first have the top bit.
    let groups = [127, 16_382, 2_097_150].iter().filter(|most| length > **most).count();
    for group in (0..=groups).rev() {
        let bits = u8::try_from(length >> (7 * group) & 0x7f).unwrap();
        entry.push(if group == groups { bits } else { bits | 0x80 });
    }
    entry
}

/// A listpack, without the string around it.
pub(super) fn listpack(elements: &[Vec<u8>], form: u8) -> Vec<u8> {
    let body: Vec<u8> =
        elements.iter().zip(0u8..=255).flat_map(|(text, at)| entry(text, form.wrapping_add(at))).collect();
    let total = u32::try_from(body.len() + 7).unwrap();
    let count = u16::try_from(elements.len()).unwrap();
    [&total.to_le_bytes()[..], &count.to_le_bytes(), &body, &[0xff]].concat()
}

/// A set of numbers of the least width that holds all, without the string around it.
pub(super) fn intset(numbers: &[i64]) -> Vec<u8> {
    let all = |fits: fn(i64) -> bool| numbers.iter().all(|number| fits(*number));
    let width = match () {
        () if all(|number| i16::try_from(number).is_ok()) => 2u32,
        () if all(|number| i32::try_from(number).is_ok()) => 4,
        () => 8,
    };
    let body = numbers.iter().flat_map(|number| number.to_le_bytes()[..width as usize].to_vec());
    let count = u32::try_from(numbers.len()).unwrap();
    width.to_le_bytes().into_iter().chain(count.to_le_bytes()).chain(body).collect()
}
