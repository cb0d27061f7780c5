//! The handles of a metric: one for each combination of the values of its labels, registered at once. To record, no
//! recorder is looked up, and a series that has nothing to count yet is there, at 0.

use metrics::{Counter, Gauge, Histogram};

use super::table::{Label, Metric};

/// The series of a metric with `N` labels: for each value of the first label, those of each value of the second, and so on.
#[derive(Debug)]
pub(super) struct Series<T, const N: usize> {
    labels: &'static [Label],
    handles: Vec<T>,
}

impl<T, const N: usize> Series<T, N> {
    fn register(metric: &Metric, series: impl Fn(&'static str, Vec<metrics::Label>) -> T) -> Self {
        let mut combinations = vec![Vec::new()];
        for Label { name, values } in metric.labels {
            let with_each = combinations.into_iter().flat_map(|shorter: Vec<_>| {
                values.iter().map(move |value| {
                    let mut longer = shorter.clone();
                    longer.push(metrics::Label::from_static_parts(name, value));
                    longer
                })
            });
            combinations = with_each.collect();
        }
        let handles = combinations.into_iter().map(|labels| series(metric.name, labels)).collect();
        Self { labels: metric.labels, handles }
    }

    /// The series with these values of the labels. `None` if there is no such value in the table.
    pub(super) fn of(&self, values: [&str; N]) -> Option<&T> {
        let mut index = 0;
        for (label, value) in self.labels.iter().zip(values) {
            let position = label.values.iter().position(|known| *known == value)?;
            index = index * label.values.len() + position;
        }
        self.handles.get(index)
    }
}

impl<const N: usize> Series<Counter, N> {
    pub(super) fn counters(metric: &Metric) -> Self {
        Self::register(metric, |name, labels| metrics::counter!(name, labels))
    }

    pub(super) fn add(&self, values: [&str; N], count: u64) {
        if let Some(counter) = self.of(values) {
            counter.increment(count);
        }
    }
}

impl<const N: usize> Series<Gauge, N> {
    pub(super) fn gauges(metric: &Metric) -> Self {
        Self::register(metric, |name, labels| metrics::gauge!(name, labels))
    }

    /// Counts one more of these, until the returned value is dropped.
    pub(super) fn count(&self, values: [&str; N]) -> Option<Counted> {
        self.of(values).map(Counted::new)
    }
}

impl<const N: usize> Series<Histogram, N> {
    pub(super) fn histograms(metric: &Metric) -> Self {
        Self::register(metric, |name, labels| metrics::histogram!(name, labels))
    }

    pub(super) fn record(&self, values: [&str; N], time: std::time::Duration) {
        if let Some(histogram) = self.of(values) {
            histogram.record(time);
        }
    }
}

/// Something that a gauge counts, for as long as this lives. What is counted up is so counted down, also by a panic.
#[derive(Debug)]
pub(super) struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
