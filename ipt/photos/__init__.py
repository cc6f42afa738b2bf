"""Picture files: what a person's photograph holds beside its pixels, read and written back."""

from ipt.photos.images import ImageError, read_image
from ipt.photos.photo import Photo, encode_photo, read_photo, write_photo

__all__ = ["ImageError", "Photo", "encode_photo", "read_image", "read_photo", "write_photo"]
