//! Numbers as people read them: three significant digits, binary byte units, a dash for unknown.

/// What stands where there is no figure.
pub const MISSING: &str = "–";

/// Byte units and their size, largest first.
pub(crate) const BYTE_UNITS: [(u64, &str); 4] = [
    (1 << 30, "GiB"),
    (1 << 20, "MiB"),
    (1 << 10, "KiB"),
    (1, "B"),
];

/// A number with about `digits` significant digits and no exponent; [`MISSING`] if not finite.
#[must_use]
pub fn significant(value: f64, digits: u32) -> String {
    if !value.is_finite() {
        return MISSING.into();
    }
    let magnitude = if value == 0.0 {
        0
    } else {
        value.abs().log10().floor() as i32
    };
    let decimals = (digits as i32 - 1 - magnitude).clamp(0, 9) as usize;
    if value == 0.0 {
        "0".into()
    } else {
        format!("{value:.decimals$}")
    }
}

/// A size in B, KiB, MiB or GiB (1 KiB is 1024 B), such as `105 KiB`.
#[must_use]
pub fn bytes(size: u64) -> String {
    let (unit, name) = BYTE_UNITS
        .into_iter()
        .find(|(unit, _)| size >= *unit)
        .unwrap_or(BYTE_UNITS[3]);
    if unit == 1 {
        return format!("{size} {name}");
    }
    format!("{} {name}", significant(size as f64 / unit as f64, 3))
}

/// A whole number with a comma between groups of three digits, such as `107,834`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count: whole below ten thousand, then with k, M, G or T, such as `98.2 k`.
#[must_use]
pub fn count(number: u64) -> String {
    if number < 10_000 {
        return grouped(number);
    }
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let value = number as f64;
    let (unit, name) = units
        .into_iter()
        .find(|(unit, _)| value >= *unit)
        .unwrap_or(units[3]);
    format!("{} {name}", significant(value / unit, 3))
}

/// A time in milliseconds without its unit, such as `0.953`.
#[must_use]
pub fn ms(value: f64) -> String {
    if value >= 1000.0 {
        grouped(value.round() as u64)
    } else {
        significant(value, 3)
    }
}

/// A share in `0..=1` as a percentage without its sign and with two decimals, such as `90.25`.
#[must_use]
pub fn percent(share: f64) -> String {
    if share.is_finite() {
        format!("{:.2}", share * 100.0)
    } else {
        MISSING.into()
    }
}

/// A quotient such as `0.27×`.
#[must_use]
pub fn times(value: f64) -> String {
    if !value.is_finite() {
        return MISSING.into();
    }
    if value >= 100.0 {
        format!("{value:.0}×")
    } else {
        format!("{value:.2}×")
    }
}

/// A difference with its sign and two decimals, such as `−0.10` or `+0.25`; `0.00` has none.
#[must_use]
pub fn signed(value: f64) -> String {
    if !value.is_finite() {
        return MISSING.into();
    }
    let text = format!("{:.2}", value.abs());
    match text.as_str() {
        "0.00" => text,
        _ if value < 0.0 => format!("−{text}"),
        _ => format!("+{text}"),
    }
}

/// A number of things with its noun, such as `1 thread` or `2,000 samples`.
#[must_use]
pub fn plural(number: u64, noun: &str) -> String {
    format!(
        "{} {noun}{}",
        grouped(number),
        if number == 1 { "" } else { "s" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_kept() {
        let got: Vec<_> = [0.0, 0.012_345, 0.953_2, 12.34, 999.4]
            .map(|v| significant(v, 3))
            .into_iter()
            .collect();
        assert_eq!(got, ["0", "0.0123", "0.953", "12.3", "999"]);
        assert_eq!(ms(12_345.6), "12,346");
    }

    #[test]
    fn sizes_use_binary_units() {
        let got = [0, 1023, 1024, 107_834, 14_000_000, 3 << 30].map(bytes);
        assert_eq!(
            got,
            [
                "0 B", "1023 B", "1.00 KiB", "105 KiB", "13.4 MiB", "3.00 GiB"
            ]
        );
    }

    #[test]
    fn counts_shorten_above_ten_thousand() {
        let got = [7, 9_999, 98_234, 4_200_000, 7_500_000_000].map(count);
        assert_eq!(got, ["7", "9,999", "98.2 k", "4.20 M", "7.50 G"]);
    }

    #[test]
    fn what_is_not_finite_is_a_dash() {
        for text in [
            ms(f64::NAN),
            percent(f64::INFINITY),
            times(f64::NAN),
            signed(f64::NAN),
        ] {
            assert_eq!(text, MISSING);
        }
    }

    #[test]
    fn signs_are_shown_unless_zero() {
        assert_eq!([-0.1, 0.25, -0.001].map(signed), ["−0.10", "+0.25", "0.00"]);
    }
}
