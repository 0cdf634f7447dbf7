"""The protocol's version and its bounds. A message outside the bounds is refused before it is acted upon."""

PROTOCOL_VERSION = 1  # both sides need the same

MAX_HEADER_BYTES = 1 << 20  # one msgpack header: a shot of MAX_FRAMES frames and MAX_SUBJECTS subjects fits
CHUNK_BYTES = 256 << 10  # payload of one upload or download chunk
PREVIEW_BYTES = 64 << 10  # picture of one preview, JPEG or PNG
CHUNKS_IN_FLIGHT = 10  # chunks that a client asks for or sends ahead
MAX_BLOB_BYTES = 4 << 30

MAX_FRAMES = 512  # model frames of one shot
MAX_SUBJECTS = 16  # subjects in one shot
MAX_STYLES = 4  # LoRAs of other programs in one shot
MAX_PICTURES = 20  # training pictures of one subject
MAX_TEXT = 1000  # characters of a prompt
MAX_NAME = 200  # characters of a name shown to people
MAX_SEED = 2**31 - 1  # the largest whole number that Blender keeps
MAX_SCENE_FRAMES = 20_000  # frames of a finished clip on the timeline
MAX_TRAINING_STEPS = 10_000
MAX_SAMPLING_STEPS = 1000
MAX_LISTED = 500  # jobs in one listing
PAGE_BYTES = 64 << 10  # of a listing: the reply that reaches them is the last one of its page

# What a client may send ahead of the server's replies, above which its connection is ended: all chunks in flight and a
# header fit.
MAX_BACKLOG_BYTES = (CHUNKS_IN_FLIGHT + 2) * CHUNK_BYTES + MAX_HEADER_BYTES  # 4 MiB
MAX_BACKLOG_REQUESTS = 256

SUBJECT_STRENGTH, BACKGROUND_STRENGTH = 0.5, 0.3  # of a guide, unless the user sets others
PICTURE_STRENGTH = 0.7  # of the background if the guide is a picture: with less, the clip may not go on from it
