"""A denoising autoencoder of directions whose loss gives less weight to large errors (vMF-PL)."""

from torch import Tensor
from torch.nn.functional import normalize

from pipeline.model.diffusion.objective import Distance, Objective, stack_inputs
from pipeline.model.diffusion.objectives.dae import infer_in_one_pass, predict_at_zero
from pipeline.model.diffusion.sampler import NoiseDraws, Predictor, Sampling


def vmf_pl_loss(
    network: Predictor, x0: Tensor, views: Tensor, t: Tensor, noise: Tensor, abar: Tensor, distance: Distance
) -> Tensor:
    """Return the mean over v of log(|f(v, 0) - x0|^2 + 1e-6), both at unit length.

    A prediction shorter than 1 is not rescaled. An untrained `sample` predicts zero, where the direction's gradient
    would be so large that AdamW hardly moved those weights again.
    """
    inputs, clean = stack_inputs(x0, views)
    gap = normalize(predict_at_zero(network, inputs), dim=1, eps=1.0) - normalize(clean, dim=1)
    return (gap.square().sum(dim=1) + 1e-6).log().mean()


def infer_on_sphere(
    network: Predictor, x: Tensor, sampling: Sampling, abar: Tensor, noise_draws: NoiseDraws = ()
) -> Tensor:
    """Return f(x, 0) scaled to length sqrt(D), because the loss ignores lengths."""
    out: Tensor = normalize(infer_in_one_pass(network, x, sampling, abar), dim=1) * x.shape[1] ** 0.5
    return out


OBJECTIVE = Objective(vmf_pl_loss, infer_on_sphere)
