//! The handles of a metric: one for each combination of the values of its labels, registered at once. To record, no
//! recorder is looked up, and a series that has nothing to count yet is there, at 0.

use std::collections::BTreeMap;

use metrics::{Counter, Gauge, Histogram};

use super::table::Metric;

/// The series of a metric with `N` labels, by the values of these.
#[derive(Debug)]
pub(super) struct Series<T, const N: usize>(BTreeMap<[&'static str; N], T>);

impl<T, const N: usize> Series<T, N> {
    fn register(metric: &Metric, series: impl Fn(&'static str, Vec<metrics::Label>) -> T) -> Self {
        let mut combinations = vec![[""; N]];
        for (index, label) in metric.labels.iter().take(N).enumerate() {
            let with_each = combinations.into_iter().flat_map(|combination| {
                label.values.iter().map(move |value| {
                    let mut longer = combination;
                    longer[index] = value;
                    longer
                })
            });
            combinations = with_each.collect();
        }
        let names = || metric.labels.iter().map(|label| label.name);
        let labels = |values: [&'static str; N]| {
            names().zip(values).map(|(name, value)| metrics::Label::from_static_parts(name, value)).collect()
        };
        let registered = |values| (values, series(metric.name, labels(values)));
        Self(combinations.into_iter().map(registered).collect())
    }

    /// The series with these values of the labels. `None` if there is no such value in the table.
    pub(super) fn of(&self, values: [&'static str; N]) -> Option<&T> {
        self.0.get(&values)
    }
}

impl<const N: usize> Series<Counter, N> {
    pub(super) fn counters(metric: &Metric) -> Self {
        Self::register(metric, |name, labels| metrics::counter!(name, labels))
    }

    pub(super) fn add(&self, values: [&'static str; N], count: u64) {
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
    pub(super) fn count(&self, values: [&'static str; N]) -> Option<Counted> {
        self.of(values).map(Counted::new)
    }
}

impl<const N: usize> Series<Histogram, N> {
    pub(super) fn histograms(metric: &Metric) -> Self {
        Self::register(metric, |name, labels| metrics::histogram!(name, labels))
    }

    pub(super) fn record(&self, values: [&'static str; N], time: std::time::Duration) {
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
