"""The list of experiments: name, one line, source, expected time. Imports nothing heavy."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """What the list of experiments says about one of them."""

    summary: str
    source: str
    duration: str


EXPERIMENTS: dict[str, Entry] = {
    "regimes": Entry(
        "the three dynamical regimes of a data set: your array, images, or a mixture",
        "2402.18491, fig. 1, 4, 5",
        "about 1 min",
    ),
    "speciation": Entry(
        "clone agreement of Gaussian mixtures, d = 256..16384",
        "2402.18491, fig. 2",
        "20 s quick, 1 min paper",
    ),
    "collapse": Entry(
        "excess entropy of Gaussian mixtures with finite-size theory",
        "2402.18491, fig. 3",
        "1 min quick, 10 min paper",
    ),
    "collapse_times": Entry(
        "nearest-neighbour times of exact trajectories and the own-point probability",
        "2402.18491, SI",
        "1 min quick, 3 min paper",
    ),
    "images": Entry(
        "MNIST 1/8 by the exact empirical score beside the published network",
        "2402.18491, fig. 4, 5",
        "1 min quick, 3 min paper",
    ),
    "curie_weiss": Entry(
        "speciation, bifurcation and information of Curie-Weiss spins, which are not Gaussian",
        "2306.03518; 2402.18491",
        "2 min quick, 10 min paper",
    ),
    "potts": Entry(
        "first-order ordering of three-colour Potts data, and clones above it",
        "Wu 1982; 2306.03518",
        "2 min quick, 20 min paper",
    ),
    "infer_times": Entry(
        "transition times inferred from measured curves, calibrated; chains that stop mixing",
        "2402.18491; 1804.06788",
        "1 min quick, 5 min paper",
    ),
    "two_level": Entry(
        "clustered data: clusters are memorised before samples, or both at once",
        "2502.09578",
        "1 min quick, 5 min paper",
    ),
    "random_energy": Entry(
        "random energies: free energy, participation and trees, exact at every size",
        "Derrida 1981, 1985",
        "30 s quick, 1.5 min paper",
    ),
    "kernel_density": Entry(
        "kernel density estimates of a Gaussian: condensation, fluctuations, best width",
        "2408.05807",
        "1 min quick, 3 min paper",
    ),
    "image_speciation": Entry(
        "clones of a trained network beside the exact empirical score of its images",
        "2402.18491, fig. 4",
        "1 min quick, 10 min paper",
    ),
    "image_collapse": Entry(
        "trained networks fall onto their images: against training steps and number of images",
        "2402.18491, fig. 5; 2505.17638",
        "2 min quick, 40 min paper",
    ),
    "train": Entry(
        "train a network on images; its error at every noise level, seen and held out",
        "2006.11239; 2402.18491",
        "3 min quick, accelerator paper",
    ),
    "memorisation_vs_n": Entry(
        "memorised, spurious and generalised samples of trained networks against n",
        "2505.21777; 2505.17638",
        "4 min quick, accelerator paper",
    ),
    "optimal_regularisation": Entry(
        "smoothing of the empirical score by noise level, optimised through the likelihood",
        "2402.18491, outlook; 2408.05807",
        "1 min quick, 10 min paper",
    ),
    "optimal_guidance": Entry(
        "a negative-guidance schedule optimised by gradient through the whole sampler",
        "2410.14398; 2402.18491, outlook",
        "1 min quick, 20 min paper",
    ),
    "class_information": Entry(
        "when the class is decided: entropy, its rate, pairs of image classes, tracked posteriors",
        "2506.10433",
        "2 min quick, 15 min paper",
    ),
    "symmetry_breaking": Entry(
        "fixed points of the generative drift: bifurcations, critical times, stable points",
        "2305.19693, fig. 1-3",
        "1 min quick, 10 min paper",
    ),
    "late_start": Entry(
        "start from a Gaussian of matched moments: distance against start time and steps",
        "2305.19693, tables 1, 2",
        "2 min quick, 40 min paper",
    ),
    "geometric_memorisation": Entry(
        "directions of a linear manifold that the empirical score loses; what is no sign of it",
        "2410.08727; 2410.05898",
        "1 min quick, 10 min paper",
    ),
    "lost_dimensions_images": Entry(
        "dimensions of an image set that exact scores of n images see, with a control",
        "2410.08727; 2410.05898",
        "1 min quick, 5 min paper",
    ),
    "associative_memory": Entry(
        "retrieval of stored patterns against load, recovery of noised ones against time",
        "2304.14964; 2402.18491; 2505.21777",
        "1 min quick, 30 min paper",
    ),
    "spurious_states": Entry(
        "energy landscape of patterns on a circle: attractors, and memorised or spurious samples",
        "2505.21777; 2309.17290",
        "2 min quick, 1 h paper",
    ),
    "classifier_free_guidance": Entry(
        "guided Gaussians: shift and variance by SDE and ODE against the norm of the centre",
        "2502.07849; 2207.12598",
        "1 min quick, 10 min paper",
    ),
    "negative_guidance": Entry(
        "removing a class: constant negative prompts against a tracked posterior",
        "2410.14398",
        "1.5 min quick, 5 min paper",
    ),
    "training_times": Entry(
        "random features: the time to memorise grows with n, the time to generalise does not",
        "2505.17638, fig. 2-4",
        "1 min quick, 10 min paper",
    ),
    "negative_guidance_images": Entry(
        "removing a class of images: a conditional network, a classifier, four rules",
        "2410.14398",
        "2 min quick, 1 h paper",
    ),
    "random_hierarchy": Entry(
        "U-turns on random grammars: survival of the class and of latent symbols, three channels",
        "2307.02129; 2402.16991",
        "2 min quick, 30 min paper",
    ),
    "hierarchical_mixture": Entry(
        "a hierarchy of Gaussian classes: each level decides at its own time; what U-turns change",
        "2402.18491; 2402.16991",
        "1 min quick, 5 min paper",
    ),
    "image_uturn": Entry(
        "U-turns of images: overlap by principal components, class by an independent classifier",
        "2402.16991",
        "1 min quick, 5 min paper",
    ),
    "hierarchy_correlations": Entry(
        "correlated changes of a random hierarchy: susceptibility and two-point function",
        "2410.13770; 2402.16991",
        "2 min quick, 30 min paper",
    ),
    "fluctuation_theorem": Entry(
        "integral and detailed fluctuation theorems of forward and generative paths",
        "2405.11932; 1401.4494",
        "2 min quick, 40 min paper",
    ),
    "entropy_production": Entry(
        "rates of entropy, their integral, and its bias at finite steps of the generative process",
        "2405.11932",
        "1 min quick, 10 min paper",
    ),
    "learned_irreversibility": Entry(
        "a trained score tested by the entropy of its paths against those of the noising chain",
        "2405.11932; 2006.11239",
        "1 min quick, 30 min paper",
    ),
    "franz_parisi": Entry(
        "overlaps of data and posterior samples, exact laws, Franz-Parisi potentials",
        "2405.11932; 2402.18491",
        "1 min quick, 20 min paper",
    ),
    "phase_diagram": Entry(
        "wells of the generative potential, modes of the noised law, frozen Gibbs measures",
        "2405.11932; 2402.18491",
        "1 min quick, 20 min paper",
    ),
    "optimal_schedule": Entry(
        "time grids of a sampler: speed limits, metrics, grids trained through the simulator",
        "1201.3207; 2006.11239",
        "1 min quick, 20 min paper",
    ),
}
