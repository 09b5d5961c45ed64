//! A line through times.

/// fixed + slope * routes.
pub struct Fit {
    pub fixed: f64,
    pub slope: f64,
    /// Of all points, relative to the line.
    pub largest_error: f64,
}

impl Fit {
    /// The line whose relative errors have the smallest sum of squares: the small sizes count as much as the large ones.
    pub fn of(points: &[(f64, f64)]) -> Self {
        // Weighted by 1 / y^2, the normal equations of a line.
        let sum =
            |of: &dyn Fn(f64, f64) -> f64| points.iter().map(|(x, y)| of(*x, *y) / (y * y)).sum::<f64>();
        let (one, x, xx) = (sum(&|_, _| 1.0), sum(&|x, _| x), sum(&|x, _| x * x));
        let (y, xy) = (sum(&|_, y| y), sum(&|x, y| x * y));
        let determinant = one * xx - x * x;
        let (fixed, slope) = ((y * xx - x * xy) / determinant, (one * xy - x * y) / determinant);
        let errors = points.iter().map(|(x, y)| ((fixed + slope * x) / y - 1.0).abs());
        Self { fixed, slope, largest_error: errors.fold(0.0, f64::max) }
    }
}

/// What power of x the last two points grow by: 1 is linear.
pub fn exponent(points: &[(f64, f64)]) -> f64 {
    match points {
        [.., (x0, y0), (x1, y1)] => (y1 / y0).ln() / (x1 / x0).ln(),
        _ => f64::NAN,
    }
}
