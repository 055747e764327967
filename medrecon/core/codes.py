"""Every error and finding code with its longer explanation: what ``medrecon explain CODE`` prints.

A test keeps this list and the codes used in the source equal. Sorted by code.
"""

from __future__ import annotations

from collections.abc import Mapping

EXPLANATIONS: Mapping[str, str] = {
    "ARG-ALLOW": "A laxness was named that does not exist. Each allowed laxness has a fixed name and is recorded in the result.",
    "ARG-BOTH": "A configuration and a preset were given together; each says everything, so one of them must go.",
    "ARG-INPUT": "The method takes another kind of input: some methods take slices, others X-ray projections.",
    "ARG-NAME": "A method, reader, format or preset was named that does not exist. The message lists the known names.",
    "ARG-TRUTH": "The truth to compare with must be a volume file, not a series of slices.",
    "BATCH-LOCKED": "Another batch holds this output folder. The lock goes with its process, also when that is killed.",
    "BATCH-SCHEDULER": "No Dask scheduler answered at the address given with --scheduler.",
    "CFG-FILE": "A YAML file could not be read as plain data: at most 64 kB, no aliases, no key twice, no tags.",
    "CFG-VALUE": "A setting is unknown, of the wrong type or out of range. The message names it and the nearest known one.",
    "CMD-LATER": "The command belongs to the published interface, and a later issue of the roadmap in README brings it.",
    "DCM-BITS": "Bits allocated, bits stored, highest bit and sign flag contradict each other, or no pixel can have them.",
    "DCM-CODEC": "The transfer syntax is not one that is read, or no decoder for it is installed. The message names the package.",
    "DCM-DECODE": "Compressed pixels could not be decoded: the decoder failed, crashed or answered nonsense.",
    "DCM-DEPTH": "Sequences are nested deeper than any scanner nests them, or a sequence of undefined length never ends.",
    "DCM-LENGTH": "An element claims more bytes than the file has left, or the file ends inside one. It was cut or made to harm.",
    "DCM-LIMIT": "The file asks for more memory, elements, frames or time than is allowed. Each limit has a name and a reason.",
    "DCM-PARSE": "The file's structure is not DICOM's, or it is not written in the transfer syntax that it declares.",
    "DCM-PIXELS": "The pixels are fewer or more than the header announces. They are never padded, and no frame is made up.",
    "DCM-TAG": "An attribute without which the image cannot be used is missing or has no usable value. The message names it.",
    "DEV-NONE": "A GPU was asked for that this machine does not have. The CPU gives the same numbers.",
    "GRID-SHAPE": "A voxel grid needs at least one voxel along each axis.",
    "GRID-SINGULAR": "The matrix from voxel index to patient mm has no inverse: a spacing is zero or two axes are parallel.",
    "ID-SECRET": "Patient identities are hashed with a secret that stays on this machine. It could be neither read nor made.",
    "INP-GONE": "A file was there when the folder was listed and is gone now. The job is marked incomplete.",
    "INP-KIND": "Something in the listing is a pipe, socket or device. Only regular files are read, and none is waited for.",
    "INP-NONE": "Nothing usable was found at the given path.",
    "INP-UNREADABLE": "The operating system refused to read a file. The message names its error; the job is marked incomplete.",
    "LED-DAMAGED": "The batch's ledger is damaged. It is never made anew by itself, because finished studies would be forgotten.",
    "LED-LOCKED": "The batch's ledger cannot be opened or written: permissions, or another program holds it.",
    "MEM-BUDGET": "The result would not fit into the free memory. Nothing was started.",
    "MEM-VOLUME": "The decoded pixels of the series would take more of the free memory than they may. Nothing was decoded.",
    "OUT-EXISTS": "The output folder holds a finished result of this series. It is replaced only when asked for.",
    "OUT-HASH": "Files on disk do not have the hashes that the run wrote down: another program changed them, or the disk failed.",
    "OUT-INPUT": "Results inside the input folder would be read as input by the next run, so that is refused.",
    "OUT-SPACE": "The disk is full or a quota is reached. The scratch file was removed; an older result is untouched.",
    "OUT-WRITE": "The operating system refused a write. The message names its error; an older result is untouched.",
    "PROFILE-TABLE": "A measured slice profile needs at least three pairs of depth (in thicknesses, rising) and weight.",
    "RUN-CANCELLED": "The run was cancelled. Nothing half-written was left under a final name.",
    "RUN-FAILED": "The child process of a study ended with an exit code and no coded message.",
    "RUN-KILLED": "The child process of a study was ended by a signal: out of memory, over its time, or killed by somebody.",
    "SCAN-POSE": "A slice pose is not finite, or its rows, columns and normal are not perpendicular.",
    "SCAN-SHAPE": "Pixels, masks and poses of a scan do not have matching sizes.",
    "SCAN-THICKNESS": "Every slice needs a positive, finite thickness in millimetres.",
    "SRF-EMPTY": "The surface level does not lie between the smallest and the largest value of the volume.",
    "SRF-VERTEX": "A surface has a vertex that is not finite, or a triangle that names a vertex which does not exist.",
    "TRF-SCAN": "A MONAI tensor carries no slice poses, or was resampled after loading; reconstruct right after LoadSeriesd.",
    "VOL-SHAPE": "Voxels or a mask do not have the shape of their grid.",
    "VOL-SHEARED": "The volume's axes are not perpendicular, and the target library or format cannot hold that.",
}
