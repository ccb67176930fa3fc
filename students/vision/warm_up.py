"""Compilation of the CPU kernels, once, before several processes would each do it."""

from __future__ import annotations


def compile_kernels() -> None:
    """Compile the kernels of cameras, augmentation and pixels, or find them compiled on disk.

    Processes that compile at the same time can differ in the last bit of what they compute, as one finds
    parts that the other has just finished; those that find everything on disk are equal.
    """
    import torch

    from tutelage.envs.batched.cameras.camera_config import CameraConfig
    from tutelage.envs.batched.looks.image_augmentation import ImageAugmentation
    from tutelage.envs.batched.looks.visual_randomization import VisualRandomization
    from tutelage.envs.batched.worlds.reach import Reach
    from tutelage.students.vision.pixels import to_pixels

    camera = CameraConfig("front", 16, 16, ("rgb", "depth", "segmentation"))
    task = Reach(1, threads=1, cameras=[camera], visuals=VisualRandomization.strong())
    pictures = {"front/rgb": task.reset()["front/rgb"]}
    task.close()
    ImageAugmentation.unseen_looks()(pictures["front/rgb"], torch.Generator().manual_seed(0))
    shapes = {name: tuple(picture.shape[1:]) for name, picture in pictures.items()}
    to_pixels(list(pictures), pictures, shapes, 1, 1.0, torch.float32, opponents=True)


if __name__ == "__main__":
    compile_kernels()
