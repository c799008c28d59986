"""`skad audit`: find good images that may be bad, copies, and leaks into a test."""

import argparse

from skad.audit.audit import audit_images
from skad.audit.page import write_audit
from skad.cli.commands import check_not_read, parameters_of
from skad.images.exclusion import leave_out
from skad.images.finding import find_images


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
        files, test=args.test, gray=args.gray, random_state=args.seed, **options
    )
    table = write_audit(audited, args.output)
    n_remarks = sum(bool(one.remarks) for one in audited)
    print(f"suspicious     {sum(one.is_suspicious for one in audited)}")
    print(f"with a remark  {n_remarks}")
    for one in audited[:5]:
        print(...)
    print(f"page           {args.output}")
    print(f"table          {table}")
    return 0
