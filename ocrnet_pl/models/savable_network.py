"""Networks that are kept in files: written into folders, shared through the hub, and built again from both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.models.base import DetectionDecoder, Encoder, Neck, PostProcess, SegmentationDecoder, Shapes
from ocrnet_pl.models.network_parts import PARTS, Parts
from ocrnet_pl.models.rebuilding import rebuild
from ocrnet_pl.storage.checkpoints import read_checkpoint, require_device, versions
from ocrnet_pl.storage.network_folder import DESCRIPTION, read_description, read_weights, type_name, write_network
from ocrnet_pl.storage.saved_network import UNRECORDED_KEY, network_in_folder, saved_network
from ocrnet_pl.storage.trusted_classes import trusted_packages
from ocrnet_pl.structures import CALIBRATION_KEY, FUSION_KEY, Taxonomy

if TYPE_CHECKING:
    from ocrnet_pl.models.model_card import ModelCard


class SavableNetwork(nn.Module):
    """The files of :class:`~ocrnet_pl.models.ocrnet.OCRNet`, which sets what is declared here."""

    mean: Tensor
    taxonomy: Taxonomy
    input_size: tuple[int, int]
    encoder: Encoder
    neck: Neck | None
    detection: DetectionDecoder | None
    segmentation: SegmentationDecoder | None
    postprocess: PostProcess
    _shapes: Shapes
    _neck_made: Parts

    @property
    def parts(self) -> Parts:
        """How its parts were made, as :meth:`save` and checkpoints store it."""
        shapes = self._shapes
        maps = (shapes.channels, shapes.strides)
        found = Parts.of(
            encoder=(self.encoder, ()),
            neck=(self.neck, (shapes.encoder_channels, shapes.encoder_strides)),
            detection=(self.detection, (*maps, self.taxonomy)),
            segmentation=(self.segmentation, (shapes, self.taxonomy)),
            postprocess=(self.postprocess, ()),
        )
        if self.neck is not None:
            return found
        # Nothing reads it, so it was not kept; a network that is built again asks it for the shapes of its maps.
        return Parts(
            {k: v for k, v in found.made.items() if k != "neck"} | self._neck_made.made,
            found.unrecorded | self._neck_made.unrecorded,
        )

    def save(self, path: str | Path, overwrite: bool = False, card: ModelCard | None = None) -> None:
        """Write the network into a folder: ``model.safetensors`` and ``network.json``, without any pickle.

        The folder appears when it is complete. Where several processes hold the network, one of them calls this.

        Args:
            path: Path of the folder, which does not exist or is empty.
            overwrite: Whether the folder of a network that was saved before is replaced.
            card: A page that introduces it; None for none.

        Raises:
            FileExistsError: There is something at ``path`` that is not to be replaced.
            ValueError: It computes in numbers of another type than float32, bfloat16 or float16.
        """
        parts = self.parts
        description = {
            "versions": versions(),
            "input_size": list(self.input_size),
            "dtype": type_name(self.mean.dtype),
            "taxonomy": self.taxonomy.to_dict(),
            "parts": parts.made,
            UNRECORDED_KEY: parts.unrecorded,
            FUSION_KEY: self.postprocess.dump_settings(),
            CALIBRATION_KEY: self.postprocess.dump_calibration(),
        }
        write_network(path, description, self.state_dict(), overwrite, None if card is None else card.files)

    def save_pretrained(
        self,
        path: str | Path,
        *,
        run: str | Path | None = None,
        pictures: int = 3,
        license: str | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write the network as :meth:`save` does, with a page ``README.md`` that introduces it to others.

        Args:
            path: Path of the folder, which does not exist or is empty; its name is that of the page.
            run: Folder of the run that trained it, of which the page shows the figures and pictures; None for neither.
            pictures: Largest number of pictures, which show images of the validation set; 0 for none.
            license: Name of the licence on the page, as the hub writes it, such as ``apache-2.0``.
            overwrite: Whether the folder of a network that was saved before is replaced.

        Raises:
            DataError: There is no such run.
            ValueError: ``pictures`` is negative.
            FileExistsError: There is something at ``path`` that is not to be replaced.
        """
        self.save(path, overwrite, self._card(Path(path).name, run, pictures, license))

    def _card(self, name: str, run: str | Path | None, pictures: int, license: str | None) -> ModelCard:
        """Return the page that introduces the network."""
        from ocrnet_pl.models.model_card import Described, model_card

        if not isinstance(pictures, int) or pictures < 0:
            raise ValueError(f"pictures: expected a whole number from 0, got {pictures!r}")
        decoders = {"boxes": self.detection, "pixels": self.segmentation}
        described = Described(
            self.taxonomy,
            self.input_size,
            sum(parameter.numel() for parameter in self.parameters()),
            str(getattr(self.encoder, "name", type(self.encoder).__name__)),
            tuple(name for name, decoder in decoders.items() if decoder is not None),
        )
        return model_card(described, name, None if run is None else Path(run), pictures, license)

    def push_to_hub(
        self,
        name: str,
        *,
        run: str | Path | None = None,
        pictures: int = 3,
        license: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        message: str = "Add the network",
    ) -> str:
        """Publish the network with its page at the Hugging Face hub.

        Args:
            name: Name of the repository, such as ``somebody/cells``; it is made if there is none.
            run: Folder of the run that trained it, of which the page shows the figures and pictures; None for neither.
            pictures: Largest number of pictures, which show images of the validation set; 0 for none.
            license: Name of the licence on the page, as the hub writes it, such as ``apache-2.0``.
            private: Whether a new repository is private; None for the account's default.
            token: Token that may write; None for that of ``hf auth login``.
            message: What the commit is called.

        Returns:
            The address of the repository.

        Raises:
            CheckpointError: The hub refuses it, or cannot be reached.
            DataError: There is no such run.
            ValueError: ``pictures`` is negative.
        """
        from ocrnet_pl.models.hub import push

        card = self._card(name, run, pictures, license)
        return push(lambda path: self.save(path, card=card), name, private, token, message)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        map_location: str | torch.device = "cpu",
        trust: str | Sequence[str] = (),
        **parts: Any,
    ) -> Self:
        """Rebuild a network from a folder, or from a repository of the Hugging Face hub.

        Only the weights and their description are fetched, neither of which can run code.

        Args:
            name: Path of a folder, or name of a repository, such as ``somebody/cells``.
            revision: Branch, tag or commit of the repository; None for the newest.
            token: Token for a private repository; None for that of ``hf auth login``.
            map_location: Device for the weights.
            trust: Packages of your own whose classes the folder may name; a trusted package may run any code.
            parts: Parts to use instead of the folder's, by name as in the constructor.

        Raises:
            CheckpointError: There is no such folder or repository, a folder is asked for a revision, or :meth:`load`
                raises it.
        """
        if Path(name).is_dir():
            if revision is not None:
                raise CheckpointError(
                    f"network {str(name)!r}: it is a folder here, which has no revision {revision!r}; leave it "
                    "out, or start where there is no such folder"
                )
            return cls.load(name, map_location, trust, **parts)
        if Path(name).is_file():
            raise CheckpointError(
                f"network {str(name)!r}: it is a file, and no folder of save_pretrained; read a checkpoint with "
                "OCRNet.from_checkpoint"
            )
        from ocrnet_pl.models.hub import fetched_folder

        return cls.load(fetched_folder(str(name), revision, token), map_location, trust, **parts)

    @classmethod
    def load(
        cls,
        path: str | Path,
        map_location: str | torch.device = "cpu",
        trust: str | Sequence[str] = (),
        **parts: Any,
    ) -> Self:
        """Rebuild a network from the folder that :meth:`save` wrote, with the same predictions.

        Args:
            path: Path of the folder.
            map_location: Device for the weights.
            trust: Packages of your own whose classes the folder may name; a trusted package may run any code.
            parts: Parts to use instead of the folder's, by name as in the constructor.

        Returns:
            The network in evaluation mode.

        Raises:
            FileNotFoundError: There is no such folder, or a file of it is absent.
            CheckpointError: A file is damaged, comes from a version that differs, or names a class that is not trusted
                or does not fit.
            ValueError: ``trust`` names no package, or the device cannot be used.
        """
        trusted_packages(trust)
        require_device(map_location)
        where = f"network {str(path)!r}"
        description = read_description(path)
        saved = network_in_folder(description, read_weights(path), f"{where}: {DESCRIPTION}")
        return rebuild(cls, saved, PARTS, parts, trust, f"{where}: {DESCRIPTION}").to(map_location)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        map_location: str | torch.device = "cpu",
        trust: str | Sequence[str] = (),
        **parts: Any,
    ) -> Self:
        """Rebuild a trained network from a checkpoint, ready to predict; needs no data set and no config.

        Only the package's own classes are built. A checkpoint that names other classes is refused before anything of
        them is imported, unless their package is trusted; a trusted package may run any code.

        Args:
            path: A checkpoint that training wrote.
            map_location: Device for the weights.
            trust: Packages of your own whose classes the checkpoint may name, such as ``["my_package"]``.
            parts: Parts to use instead of the checkpoint's, by name as in the constructor; for those that it could not
                record.

        Returns:
            The network in evaluation mode, with the averaged weights where training kept an average.

        Raises:
            FileNotFoundError: There is no such file.
            CheckpointError: The file is damaged, is not a checkpoint of this project, comes from a version that
                differs, or names a class that is not trusted or does not fit.
            ValueError: ``trust`` names no package, or the device cannot be used.
        """
        trusted_packages(trust)
        where = f"checkpoint {str(path)!r}"
        saved = saved_network(read_checkpoint(path, map_location), where)
        prefix = "network."
        own = {k.removeprefix(prefix): v for k, v in saved.weights.items() if k.startswith(prefix)}
        return rebuild(cls, saved._replace(weights=own), PARTS, parts, trust, where).to(map_location)
