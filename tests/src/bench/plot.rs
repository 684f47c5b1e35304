//! Cost curves as SVG, by hand: two axes, one line for each series.

use std::fmt::Write;

use super::report::number;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 60.0;
const COLOURS: [&str; 6] = [
    "#0b6e99", "#d9730d", "#448361", "#9065b0", "#c14c8a", "#787774",
];

/// One plot. Both axes are logarithmic: costs span powers of ten.
#[derive(Debug)]
pub(super) struct Curve {
    /// File name, ending in `.svg`.
    pub(super) file: String,
    pub(super) title: String,
    pub(super) x: &'static str,
    pub(super) y: &'static str,
    pub(super) series: Vec<(String, Vec<(f64, f64)>)>,
}

struct Axis {
    from: f64,
    to: f64,
    begin: f64,
    end: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, begin: f64, end: f64) -> Self {
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| {
            (low.min(v), high.max(v))
        });
        let (low, high) = if low > high { (1.0, 10.0) } else { (low, high) };
        let (from, to) = ((low * 0.8).log10(), (high * 1.25).log10());
        Self {
            from,
            to,
            begin,
            end,
        }
    }

    fn at(&self, value: f64) -> f64 {
        self.begin + (value.log10() - self.from) / (self.to - self.from) * (self.end - self.begin)
    }

    /// 1, 2 and 5 of every power of ten within the axis; only powers of ten when it spans many.
    fn ticks(&self) -> Vec<f64> {
        let steps: &[f64] = if self.to - self.from > 3.0 {
            &[1.0]
        } else {
            &[1.0, 2.0, 5.0]
        };
        let powers = self.from.floor() as i32..=self.to.ceil() as i32;
        let ticks = powers.flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
        ticks
            .filter(|tick| (self.from..=self.to).contains(&tick.log10()))
            .collect()
    }
}

impl Curve {
    /// The drawing. What cannot be on a logarithmic axis (0, NaN) is left out.
    pub(super) fn svg(&self) -> String {
        let shown = |(x, y): &(f64, f64)| *x > 0.0 && *y > 0.0 && x.is_finite() && y.is_finite();
        let points = || {
            self.series
                .iter()
                .flat_map(|(_, points)| points.iter().copied().filter(shown))
        };

        let across = Axis::over(points().map(|(x, _)| x), LEFT, WIDTH - RIGHT);
        let up = Axis::over(points().map(|(_, y)| y), HEIGHT - BOTTOM, TOP);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{}</text>\n",
            self.title
        );
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in across.ticks() {
            let x = across.at(tick);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#e5e5e5\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 18.0,
                tick_text(tick)
            );
        }

        for tick in up.ticks() {
            let y = up.at(tick);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#e5e5e5\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                tick_text(tick)
            );
        }

        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text x=\"18\" y=\"{:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 18 {:.1})\">{}</text>",
            f64::midpoint(LEFT, right),
            HEIGHT - 16.0,
            self.x,
            f64::midpoint(TOP, bottom),
            f64::midpoint(TOP, bottom),
            self.y
        );

        for (i, (name, points)) in self.series.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let line: Vec<String> = points
                .iter()
                .filter(|point| shown(point))
                .map(|(x, y)| format!("{:.1},{:.1}", across.at(*x), up.at(*y)))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                line.join(" ")
            );
            for (point, text) in line.iter().zip(points.iter().filter(|point| shown(point))) {
                let (x, y) = point.split_once(',').unwrap_or_default();
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{x}\" cy=\"{y}\" r=\"3.5\" fill=\"{colour}\"><title>{}: {}</title></circle>",
                    number(text.0),
                    number(text.1)
                );
            }
            let y = TOP + 18.0 * i as f64 + 8.0;
            let _ = writeln!(
                svg,
                "<rect x=\"{}\" y=\"{}\" width=\"12\" height=\"3\" fill=\"{colour}\"/><text x=\"{}\" y=\"{y}\">{name}</text>",
                right + 14.0,
                y - 5.0,
                right + 32.0
            );
        }

        svg + "</svg>\n"
    }
}

fn tick_text(tick: f64) -> String {
    match tick {
        t if t >= 1e6 => format!("{}M", t / 1e6),
        t if t >= 1e3 => format!("{}k", t / 1e3),
        t => format!("{}", (t * 1e6).round() / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_that_can_be_drawn_is_drawn() {
        let series = vec![(
            "a".to_owned(),
            vec![(1.0, 10.0), (100.0, 20.0), (0.0, 1.0), (5.0, f64::NAN)],
        )];
        let svg = Curve {
            file: "x.svg".into(),
            title: "t".into(),
            x: "x",
            y: "y",
            series,
        }
        .svg();

        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(!svg.contains("NaN"));
    }
}
