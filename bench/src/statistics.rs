//! Medians, spread, and what may be concluded from them. Pure.

/// The middle and the ends of some figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// Distance of the quartiles, as a part of the median.
    pub(crate) width: f64,
    pub(crate) count: usize,
}

/// Figures that scatter wider than this (quartiles apart, as a part of the median) are noise.
const NOISY_WIDTH: f64 = 0.30;
/// Two runs of the same thing that differ more than this show a noisy machine.
const CONTROL_DRIFT: f64 = 0.15;
/// Differences below this are none.
const EQUAL: f64 = 0.05;
/// Fewer rounds than this prove nothing.
pub(crate) const ENOUGH_ROUNDS: usize = 5;

impl Spread {
    /// `None` for no figures.
    pub(crate) fn of(figures: &[f64]) -> Option<Self> {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let median = quantile(&sorted, 2)?;
        let width = (quantile(&sorted, 3)? - quantile(&sorted, 1)?) / median.max(1e-12);
        Some(Self {
            median,
            low,
            high,
            width,
            count: sorted.len(),
        })
    }

    /// Too wide to speak of a middle.
    pub(crate) fn is_noisy(&self) -> bool {
        self.width > NOISY_WIDTH
    }
}

/// The n-th quartile of sorted figures, between neighbours where it falls between them.
fn quantile(sorted: &[f64], quarter: usize) -> Option<f64> {
    let steps = sorted.len().checked_sub(1)? * quarter;
    let (at, rest) = (steps / 4, steps % 4);
    let low = *sorted.get(at)?;
    let high = *sorted.get(at + 1).unwrap_or(&low);
    Some(low + (high - low) * f64::from(u32::try_from(rest).unwrap_or(0)) / 4.0)
}

/// Whether a row is fit for conclusions, from the ratios of the native file system's second run to its first.
pub(crate) fn is_quiet(control: &[f64]) -> bool {
    Spread::of(control).is_some_and(|spread| {
        spread.count >= ENOUGH_ROUNDS
            && !spread.is_noisy()
            && (spread.median - 1.0).abs() <= CONTROL_DRIFT
    })
}

/// How one peer stands to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ahead,
    Level,
    Behind,
    /// The rounds contradict each other.
    Unclear,
}

/// Compares by the ratios of both in the same rounds.
pub(crate) fn compare(ratios: &[f64]) -> Verdict {
    let Some(spread) = Spread::of(ratios).filter(|spread| spread.count >= ENOUGH_ROUNDS) else {
        return Verdict::Unclear;
    };
    if spread.is_noisy() && spread.low < 1.0 && spread.high > 1.0 {
        return Verdict::Unclear;
    }
    match spread.median {
        median if (median - 1.0).abs() <= EQUAL => Verdict::Level,
        median if median > 1.0 && above(ratios, 1.0) => Verdict::Ahead,
        median if median < 1.0 && !below(ratios, 1.0) => Verdict::Unclear,
        median if median < 1.0 => Verdict::Behind,
        _ => Verdict::Unclear,
    }
}

/// All but at most one in five.
fn above(ratios: &[f64], bound: f64) -> bool {
    ratios.iter().filter(|ratio| **ratio <= bound).count() * 5 <= ratios.len()
}

fn below(ratios: &[f64], bound: f64) -> bool {
    ratios.iter().filter(|ratio| **ratio >= bound).count() * 5 <= ratios.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_odd_and_even() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]).unwrap().median, 2.0);
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn a_wide_or_drifting_or_short_control_concludes_nothing() {
        assert!(is_quiet(&[1.0, 1.01, 0.99, 1.02, 0.98]));
        assert!(!is_quiet(&[1.0, 2.0, 0.5, 1.5, 0.7]), "wide");
        assert!(!is_quiet(&[1.3, 1.3, 1.3, 1.3, 1.3]), "drifting");
        assert!(!is_quiet(&[1.0, 1.0, 1.0, 1.0]), "short");
    }

    #[test]
    fn verdicts() {
        assert_eq!(compare(&[1.2, 1.3, 1.1, 1.25, 1.2]), Verdict::Ahead);
        assert_eq!(compare(&[0.8, 0.7, 0.8, 0.75, 0.8]), Verdict::Behind);
        assert_eq!(compare(&[1.0, 1.04, 0.97, 1.0, 1.01]), Verdict::Level);
        assert_eq!(compare(&[0.5, 2.0, 1.1, 0.4, 1.9]), Verdict::Unclear);
        assert_eq!(compare(&[2.0, 2.0]), Verdict::Unclear, "too few");
    }
}
