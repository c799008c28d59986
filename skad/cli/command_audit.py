"""`skad audit`: find good images that may be bad, copies, and leaks into a test."""

import argparse

from skad.audit.audit import audit_images
from skad.audit.page import write_audit
from skad.cli.commands import check_not_read, parameters_of
from skad.common.files import make_room_for
from skad.images.exclusion import leave_out
from skad.images.finding import find_images

_LISTED = 10  # suspicious images that are printed


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    found = [find_images(one, recursive=args.recursive) for one in args.folders]
    files = list(dict.fromkeys(file for some in found for file in some))
    files = leave_out(files, args.exclude)
    for output in (args.output, args.output.with_suffix(".csv")):
        check_not_read(output, files)
        make_room_for(output)
    options = parameters_of(args, "image_size", "encoder", "device")
    print(f"auditing {len(files)} images")
    audited = audit_images(
        files,
        test=args.test,
        gray=args.gray,
        random_state=args.seed,
        verbose=1,
        **options,
    )
    table = write_audit(audited, args.output)
    suspicious = [one for one in audited if one.is_suspicious]
    print(f"suspicious     {len(suspicious)}")
    for one in suspicious[:_LISTED]:
        print(f"               {one.path} (z = {one.z:.1f})")
    if len(suspicious) > _LISTED:
        print("               ...")
    print(f"with a remark  {sum(bool(one.remarks) for one in audited)}")
    print(f"page           {args.output}")
    print(f"table          {table}")
    return 0
