//! Plots of a figure against a number that grows tenfold: a dot for each measurement, a line through the medians. SVG,
//! without a library; both scales are logarithmic.

use std::fmt::Write as _;

use crate::statistics::Spread;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 50.0;
const TOP: f64 = 40.0;
const RIGHT: f64 = 150.0;
const COLOURS: [&str; 6] = [
    "#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#555555",
];

/// One line: its name, and the measurements taken at each number.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, Vec<f64>)>,
}

/// A scale that shows each of these figures.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    /// From power of ten to power of ten.
    fn over(figures: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
        for figure in figures.filter(|figure| *figure > 0.0) {
            low = low.min(figure);
            high = high.max(figure);
        }
        if high <= 0.0 {
            (low, high) = (1.0, 10.0);
        }
        let (low, high) = (low.log10().floor(), high.log10().ceil());
        Self {
            low,
            high: high.max(low + 1.0),
        }
    }

    /// Where a figure stands, from 0 to 1.
    fn part(&self, figure: f64) -> f64 {
        ((figure.max(1e-12).log10() - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let (mut at, high) = (self.low, self.high);
        std::iter::from_fn(move || {
            let tick = (at <= high).then(|| 10_f64.powf(at));
            at += 1.0;
            tick
        })
    }
}

/// The drawing.
pub(crate) fn drawing(title: &str, across: &str, up: &str, lines: &[Line]) -> String {
    let numbers = lines.iter().flat_map(|line| &line.points);
    let x = Scale::over(numbers.clone().map(|(number, _)| *number));
    let y = Scale::over(numbers.flat_map(|(_, figures)| figures.iter().copied()));
    let at_x = |number| LEFT + x.part(number) * (WIDTH - LEFT - RIGHT);
    let at_y = |figure| HEIGHT - BOTTOM - y.part(figure) * (HEIGHT - BOTTOM - TOP);
    let mut body = String::new();
    for tick in x.ticks() {
        let (x, bottom) = (at_x(tick), HEIGHT - BOTTOM);
        let _ = writeln!(
            body,
            "<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#ddd\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            number(tick)
        );
    }
    for tick in y.ticks() {
        let (y, right) = (at_y(tick), WIDTH - RIGHT);
        let _ = writeln!(
            body,
            "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y + 4.0,
            number(tick)
        );
    }
    for (place, (line, colour)) in lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let mut path = String::new();
        for (number, figures) in &line.points {
            let Some(spread) = Spread::of(figures) else {
                continue;
            };
            let step = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(
                path,
                "{step}{:.1} {:.1}",
                at_x(*number),
                at_y(spread.median)
            );
            for figure in figures {
                let (x, y) = (at_x(*number), at_y(*figure));
                let _ = writeln!(
                    body,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{colour}\" fill-opacity=\"0.5\"/>"
                );
            }
        }
        let below = TOP + 14.0 + 16.0 * f64::from(u32::try_from(place).unwrap_or(0));
        let _ = writeln!(
            body,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\
             <text x=\"{}\" y=\"{below}\" fill=\"{colour}\">{}</text>",
            WIDTH - RIGHT + 8.0,
            line.name
        );
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" font-size=\"13\">{title}</text>\n\
         <text x=\"{LEFT}\" y=\"32\">{up}, against {across}</text>\n{body}</svg>\n"
    )
}

fn number(tick: f64) -> String {
    if tick >= 1.0 {
        format!("{tick:.0}")
    } else {
        format!("{tick}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_shows_every_figure_it_was_made_for() {
        let scale = Scale::over([3.0, 0.02, 700.0].into_iter());
        assert_eq!((scale.low, scale.high), (-2.0, 3.0));
        assert_eq!(scale.part(0.01), 0.0);
        assert_eq!(scale.part(1000.0), 1.0);
        assert_eq!(scale.ticks().count(), 6);
        assert_eq!(Scale::over(std::iter::empty()).ticks().count(), 2);
    }

    #[test]
    fn each_measurement_is_a_dot() {
        let line = Line {
            name: "a".into(),
            points: vec![(10.0, vec![1.0, 2.0]), (100.0, vec![3.0])],
        };
        let svg = drawing("t", "files", "us", &[line]);
        assert_eq!(svg.matches("<circle").count(), 3);
    }
}
