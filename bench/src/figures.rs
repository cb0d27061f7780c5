//! Figures: what was measured on both sides, in turns, and what is told of it.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::ground::Side;

/// Times of one side.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    fn sorted(&self) -> Vec<Duration> {
        let mut all = self.0.clone();
        all.sort();
        all
    }

    /// The time that so many of a hundred are below.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let all = self.sorted();
        let index = (all.len() * percent / 100).min(all.len().saturating_sub(1));
        all.get(index).copied().unwrap_or_default()
    }

    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }
}

/// A line of the table.
pub(crate) struct Row {
    what: String,
    ours: String,
    raw: String,
    /// Ours to the runtime's, where there is such.
    ratio: Option<f64>,
    target: &'static str,
    json: Value,
}

/// What it was measured on.
pub(crate) struct About(Vec<String>);

impl About {
    /// This machine, with these runtimes.
    pub(crate) fn this(side: &Side) -> Self {
        let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let model = model.map_or("", |(_, model)| model);
        let count = std::thread::available_parallelism().map_or(0, usize::from);
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        Self(vec![
            format!("Longshore {}", env!("CARGO_PKG_VERSION")),
            side.version.clone(),
            format!("Linux {kernel}"),
            format!("{count} processors, {model}"),
        ])
    }
}

/// Everything that was measured.
pub(crate) struct Report {
    about: About,
    rows: Vec<Row>,
    /// Containers running, our latency, the runtime's.
    pub(crate) curve: Vec<(usize, Duration, Duration)>,
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl Report {
    pub(crate) const fn new(about: About) -> Self {
        Self { about, rows: Vec::new(), curve: Vec::new() }
    }

    /// The rows of another process, as its [`json`](Self::json) has them.
    pub(crate) fn add(&mut self, other: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.about.0.insert(2, text(&other["about"][1]));
        for row in other["rows"].as_array().into_iter().flatten() {
            let [what, ours, raw] = ["what", "ours", "raw"].map(|column| text(&row["row"][column]));
            self.rows.push(Row {
                what,
                ours,
                raw,
                ratio: row["ratio"].as_f64(),
                target: "–",
                json: row.clone(),
            });
        }
    }

    /// Times of both sides.
    pub(crate) fn compare(&mut self, what: &str, ours: &Times, raw: &Times, target: &'static str) {
        let ratio = ours.median().as_secs_f64() / raw.median().as_secs_f64();
        let show =
            |times: &Times| format!("{:.1} / {:.1} ms", millis(times.median()), millis(times.percentile(99)));
        let json = |times: &Times| json!({"median_ms": millis(times.median()), "p99_ms": millis(times.percentile(99)), "n": times.0.len()});
        self.rows.push(Row {
            what: what.to_owned(),
            ours: show(ours),
            raw: show(raw),
            ratio: Some(ratio),
            target,
            json: json!({"what": what, "ours": json(ours), "raw": json(raw), "ratio": ratio}),
        });
    }

    /// One time of each side, a mean.
    pub(crate) fn compare_single(&mut self, what: &str, ours: Duration, raw: Duration) {
        let (ours, raw) = (millis(ours), millis(raw));
        self.rows.push(Row {
            what: what.to_owned(),
            ours: format!("{ours:.1} ms"),
            raw: format!("{raw:.1} ms"),
            ratio: Some(ours / raw),
            target: "–",
            json: json!({"what": what, "ours_ms": ours, "raw_ms": raw, "ratio": ours / raw}),
        });
    }

    /// Times of ours alone.
    pub(crate) fn tell_times(&mut self, what: &str, times: &Times, target: &'static str) {
        let (median, p99) = (millis(times.median()), millis(times.percentile(99)));
        let json = json!({"median_ms": median, "p99_ms": p99, "n": times.0.len()});
        self.figure(what, format!("{median:.2} / {p99:.2} ms"), json, target);
    }

    /// A figure of ours and one of the runtime's that stand for themselves.
    pub(crate) fn figure_beside(
        &mut self,
        what: &str,
        ours: String,
        raw: String,
        json: Value,
        target: &'static str,
    ) {
        let json = json!({"what": what, "ours": json, "raw": raw});
        self.rows.push(Row { what: what.to_owned(), ours, raw, ratio: None, target, json });
    }

    /// Rates of both sides, in the same unit.
    pub(crate) fn compare_rates(
        &mut self,
        what: &str,
        ours: f64,
        raw: f64,
        unit: &str,
        target: &'static str,
    ) {
        self.rows.push(Row {
            what: what.to_owned(),
            ours: format!("{ours:.1} {unit}"),
            raw: format!("{raw:.1} {unit}"),
            ratio: Some(ours / raw),
            target,
            json: json!({"what": what, "ours": ours, "raw": raw, "unit": unit, "ratio": ours / raw}),
        });
    }

    /// A figure of ours alone.
    pub(crate) fn figure(&mut self, what: &str, figure: String, json: Value, target: &'static str) {
        self.figure_beside(what, figure, "–".into(), json, target);
    }

    pub(crate) fn table(&self) -> String {
        let mut text = self.about.0.join(", ") + "\n\n";
        text.push_str("| what | Longshore | the runtime alone | ratio | to reach |\n|---|---|---|---|---|\n");
        for Row { what, ours, raw, ratio, target, .. } in &self.rows {
            let ratio = ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
            let _infallible = writeln!(text, "| {what} | {ours} | {raw} | {ratio} | {target} |");
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
        let curve: Vec<_> = (self.curve.iter())
            .map(|(running, ours, raw)| json!({"running": running, "ours_ms": millis(*ours), "raw_ms": millis(*raw)}))
            .collect();
        let rows = self.rows.iter().map(|row| {
            let mut json = row.json.clone();
            json["row"] = json!({"what": row.what, "ours": row.ours, "raw": row.raw});
            json
        });
        json!({"about": self.about.0, "rows": rows.collect::<Vec<_>>(), "latency_by_running": curve})
    }

    /// The greatest latency of the curve, at least 1, in milliseconds.
    fn slowest(&self) -> f64 {
        self.curve.iter().map(|(_, ours, raw)| millis(*ours.max(raw))).fold(1.0, f64::max)
    }

    /// Latency against containers running, as SVG.
    pub(crate) fn plot(&self) -> String {
        let (width, height, margin) = (640.0, 360.0, 48.0);
        let most = self.curve.iter().map(|(running, ..)| *running).max().unwrap_or(1).max(1) as f64;
        let slowest = self.slowest() * 1.1;
        let x = |running: usize| margin + running as f64 / most * (width - 2.0 * margin);
        let y = |time: Duration| height - margin - millis(time) / slowest * (height - 2.0 * margin);
        let line = |name: &str,
                    color: &str,
                    offset: f64,
                    of: &dyn Fn(&(usize, Duration, Duration)) -> Duration| {
            let points: Vec<_> =
                (self.curve.iter()).map(|point| format!("{:.1},{:.1}", x(point.0), y(of(point)))).collect();
            format!(
                "<polyline fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" points=\"{}\"/>\n<text x=\"{}\" y=\"{}\" fill=\"{color}\">{name}</text>\n",
                points.join(" "),
                width - margin - 120.0,
                margin + offset
            )
        };
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
             <text x=\"{margin}\" y=\"24\">run of true, median ms, by containers running</text>\n"
        );
        for step in 0..=4_u32 {
            let time = Duration::from_secs_f64(slowest / 1e3 * f64::from(step) / 4.0);
            let (y, right) = (y(time), width - margin);
            let line =
                format!("<line x1=\"{margin}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>");
            let label = format!("<text x=\"8\" y=\"{:.1}\">{:.0}</text>", y + 4.0, millis(time));
            let _infallible = writeln!(svg, "{line}{label}");
        }
        for (running, ..) in &self.curve {
            let (x, y) = (x(*running) - 6.0, height - margin + 18.0);
            let _infallible = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\">{running}</text>");
        }
        svg += &line("Longshore", "#0b6", 0.0, &|point| point.1);
        svg += &line("runtime alone", "#c33", 18.0, &|point| point.2);
        svg + "</svg>\n"
    }
}
