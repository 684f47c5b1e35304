//! The matrix product that the network is made of, for candle's back propagation.
//!
//! candle's own product asks for the number of cores at each call, which on Linux reads `/proc/cpuinfo`, unless the process
//! was started with `RAYON_NUM_THREADS`: 17 µs for a product of 2 µs on two cores, and more on more. With the default
//! network an epoch takes 3.6 times as long. A worker cannot set its environment safely while it runs, and must not depend
//! on how it was started. So the product is taken from ndarray, on the calling thread; candle keeps track of the operations
//! and derives them.

use candle_core::{CpuStorage, CustomOp2, DType, Error, Layout, Result, Shape, Tensor};
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ShapeBuilder};

/// `a · b`.
pub(super) fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.apply_op2(b, MatMul)
}

struct MatMul;

impl CustomOp2 for MatMul {
    fn name(&self) -> &'static str {
        "matmul-on-this-thread"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (a, b) = (view(a, a_layout)?, view(b, b_layout)?);
        // In row order, as candle takes it to be: `dot` would choose the order by its operands.
        let mut product = Array2::zeros((a.nrows(), b.ncols()));
        general_mat_mul(1.0, &a, &b, 0.0, &mut product);
        let shape = Shape::from(product.dim());
        Ok((CpuStorage::F64(product.into_raw_vec_and_offset().0), shape))
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        // The rows of the data need no gradient, and theirs would be the dearest.
        let grad_a = if a.track_op() { Some(grad.apply_op2_no_bwd(&b.t()?, &MatMul)?) } else { None };
        let grad_b = if b.track_op() { Some(a.t()?.apply_op2_no_bwd(grad, &MatMul)?) } else { None };
        Ok((grad_a, grad_b))
    }
}

/// The matrix as ndarray sees it, in place.
fn view<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<ArrayView2<'a, f64>> {
    let CpuStorage::F64(values) = storage else {
        return Err(Error::UnsupportedDTypeForOp(DType::F64, "matmul"));
    };
    let (rows, columns) = layout.shape().dims2()?;
    let stride = layout.stride();
    ArrayView2::from_shape((rows, columns).strides((stride[0], stride[1])), &values[layout.start_offset()..])
        .map_err(Error::wrap)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn agrees_with_candle_also_in_its_derivatives() -> Result<()> {
        let random = |rows: usize, columns: usize| Var::rand(-1f64, 1f64, (rows, columns), &Device::Cpu);
        for (rows, inner, columns) in [(1, 1, 1), (5, 3, 1), (1, 4, 6), (5, 1, 6), (7, 8, 9)] {
            let (a, b) = (random(rows, inner)?, random(columns, inner)?);
            let weight = random(rows, columns)?;
            let mine = matmul(&a, &b.t()?)?;
            let theirs = a.matmul(&b.t()?)?;
            let grads = |product: &Tensor| (product * weight.as_tensor())?.sum_all()?.backward();
            let (mine_grads, their_grads) = (grads(&mine)?, grads(&theirs)?);
            close(&mine, &theirs)?;
            for var in [&a, &b] {
                close(mine_grads.get(var).unwrap(), their_grads.get(var).unwrap())?;
            }
        }
        Ok(())
    }

    fn close(a: &Tensor, b: &Tensor) -> Result<()> {
        assert_eq!(a.dims(), b.dims());
        let difference = (a - b)?.abs()?.max_all()?.to_scalar::<f64>()?;
        assert!(difference < 1e-14, "{difference}");
        Ok(())
    }
}
