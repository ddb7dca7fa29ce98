"""Reads DAC's weights as others saved them: a .pth of the `descript-audio-codec` package, or a folder of transformers.

Both become the transformers names, which are those of our module. In a .pth every convolution goes by its place in a
sequence, and its weight is split by weight norm into a length (weight_g) and a direction (weight_v).
"""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from slm.errors import SlmError
from slm.reading import Named, Report, fill, read_config, read_safetensors, read_torch, require, state_dict, weights_file
from slm_tokenizers.dac import DAC

UNIT = ("snake1", "conv1", "snake2", "conv2")


@dataclass
class Imported:
    model: DAC
    report: Report


def holds_dac(held: object) -> bool:
    """Does a torch file that holds this look like one of the package: a state dict beside the arguments it was built with?"""
    return isinstance(held, dict) and {"state_dict", "metadata"} <= set(held)


def dac_from_pth(path: str | Path, strict: bool = True) -> Imported:
    """A .pth of the package, which names its own sizes. Only tensors and plain data are read, pickled objects are refused.

    SlmError if the file is something else, or does not fit; with strict=False the report tells what did not.
    """
    return dac_from_held(read_torch(Path(path)), path, strict)


def dac_from_held(held: object, path: str | Path, strict: bool = True) -> Imported:
    """As `dac_from_pth`, of what `read_torch` returned."""
    if not holds_dac(held):
        raise SlmError(f"{path}: not a DAC saved by the descript-audio-codec package, state_dict or metadata is missing")
    model = package_config(held["metadata"], path).build()
    theirs = folded(pth_names(state_dict(held["state_dict"], path), len(model.config.ratios)))
    return Imported(model, fill(model.state_dict(), theirs, path, "DAC", strict))


def dac_from_transformers(folder: str | Path, strict: bool = True) -> Imported:
    """A folder with config.json and model.safetensors, as `DacModel.save_pretrained` leaves it. Errors as above."""
    folder = Path(folder)
    weights = weights_file(folder)
    model = transformers_config(read_config(folder), folder).build()
    theirs = folded({name: (name, tensor) for name, tensor in read_safetensors(weights).items()})
    return Imported(model, fill(model.state_dict(), theirs, weights, "DAC", strict))


def pth_names(tensors: dict[str, Tensor], blocks: int) -> Named:
    """The tensors of a .pth under the transformers names; one whose place is unknown keeps its own."""
    places = {"encoder.block.0": "encoder.conv1", "decoder.model.0": "decoder.conv1"}
    for side in ("encoder.block", "decoder.model"):
        ours = side.split(".")[0]
        places |= {f"{side}.{blocks + 1}": f"{ours}.snake1", f"{side}.{blocks + 2}": f"{ours}.conv2"}
    for i in range(blocks):
        places |= block_names(f"encoder.block.{i + 1}.block", f"encoder.block.{i}", 0, {3: "snake1", 4: "conv1"})
        places |= block_names(f"decoder.model.{i + 1}.block", f"decoder.block.{i}", 2, {0: "snake1", 1: "conv_t1"})
    named = {}
    for name, tensor in tensors.items():
        place, _, leaf = name.rpartition(".")
        named[f"{places.get(place, place)}.{leaf}"] = (name, tensor)
    return named


def block_names(theirs: str, ours: str, first: int, rest: dict[int, str]) -> dict[str, str]:
    """The places of one block: three residual units from place `first` on, and the `rest`."""
    units = {f"{theirs}.{first + unit}.block.{k}": f"{ours}.res_unit{unit + 1}.{part}" for unit in range(3) for k, part in enumerate(UNIT)}
    return units | {f"{theirs}.{k}": f"{ours}.{part}" for k, part in rest.items()}


def folded(theirs: Named) -> Named:
    """Each weight_g and weight_v as the one weight that they make; a half without its other half is left as it is."""
    plain = dict(theirs)
    for name, (g_name, g) in theirs.items():
        stem = name.removesuffix("weight_g")
        if stem == name or stem + "weight_v" not in theirs:
            continue
        v_name, v = theirs[stem + "weight_v"]
        if v.dim() != 3 or g.shape != (len(v), 1, 1):
            continue
        del plain[stem + "weight_g"], plain[stem + "weight_v"]
        plain[stem + "weight"] = (f"{g_name}, {v_name}", v * (g / v.norm(dim=(1, 2), keepdim=True)))
    return plain


def package_config(metadata: object, path: str | Path) -> DAC.Config:
    """Our Config of the arguments that the package wrote beside the weights; what is absent has the package's default."""
    kwargs = metadata.get("kwargs") if isinstance(metadata, dict) else None
    if not isinstance(kwargs, dict):
        raise SlmError(f"{path}: its metadata does not hold the arguments (kwargs) that its model was built with")
    names = {
        "sample_rate": "sampling_rate", "encoder_dim": "encoder_hidden_size", "decoder_dim": "decoder_hidden_size",
        "encoder_rates": "downsampling_ratios", "decoder_rates": "upsampling_ratios", "latent_dim": "hidden_size",
    }  # fmt: skip
    defaults = {"sampling_rate": 44_100}
    return config_of(defaults | {names.get(key, key): value for key, value in kwargs.items()}, f"{path}: metadata")


def transformers_config(config: dict, folder: Path) -> DAC.Config:
    """Our Config of a transformers config.json."""
    return config_of(config, f"{folder}/config.json")


def config_of(config: dict, where: str) -> DAC.Config:
    """Our Config of the fields of a transformers config; SlmError if one says what DAC cannot have."""
    try:
        ratios = tuple(int(ratio) for ratio in config.get("downsampling_ratios", (2, 4, 8, 8)))[::-1]
        ours = DAC.Config(
            rate=int(config.get("sampling_rate", 16_000)),
            n_q=int(config.get("n_codebooks", 9)),
            card=int(config.get("codebook_size", 1024)),
            code_dim=int(config.get("codebook_dim", 8)),
            encoder_filters=int(config.get("encoder_hidden_size", 64)),
            decoder_filters=int(config.get("decoder_hidden_size", 1536)),
            ratios=ratios,
        )
        width = config.get("hidden_size")
        ours.dim = None if width in (None, ours.width) else int(width)
        upward = tuple(int(ratio) for ratio in config.get("upsampling_ratios") or ratios)
    except (TypeError, ValueError) as error:
        raise SlmError(f"{where}: a field has a value that DAC cannot have ({error})") from error
    require({"upsampling_ratios": upward}, {"upsampling_ratios": ratios}, where)
    return ours
