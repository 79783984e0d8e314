//! Repeated measurements of one figure.

/// Values of one figure, at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// In ascending order.
    values: Vec<f64>,
}

impl Samples {
    /// `None` without values.
    pub fn new(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        (!values.is_empty()).then_some(Self { values })
    }

    /// The middle one; of an even number, the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        let upper = self.values.len() / 2;
        let lower = (self.values.len() - 1) / 2;
        f64::midpoint(self.values[lower], self.values[upper])
    }

    /// The smallest.
    pub fn min(&self) -> f64 {
        self.values[0]
    }

    /// The largest.
    pub fn max(&self) -> f64 {
        self.values[self.values.len() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_extremes_do_not_depend_on_the_order() {
        for (values, expected) in [
            (vec![3.0], (3.0, 3.0, 3.0)),
            (vec![9.0, 1.0], (5.0, 1.0, 9.0)),
            (vec![10.0, 2.0, 3.0], (3.0, 2.0, 10.0)),
            (vec![4.0, 100.0, 1.0, 3.0], (3.5, 1.0, 100.0)),
        ] {
            let samples = Samples::new(values).unwrap();
            assert_eq!((samples.median(), samples.min(), samples.max()), expected);
        }
    }

    #[test]
    fn nothing_has_no_median() {
        assert_eq!(Samples::new([]), None);
    }
}
