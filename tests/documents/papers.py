"""Documents of the kinds that offices make, written by hand."""

import io
from collections.abc import Sequence

__all__ = ["pdf", "word"]


def pdf(pages: Sequence[Sequence[str]], titles: Sequence[str] = ()) -> bytes:
    """A PDF of these lines, with a bookmark for each page that has a title."""
    count = len(pages)
    parts = [b"", b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"]  # 0: the catalogue, to come
    kids = " ".join(f"{3 + 2 * i} 0 R" for i in range(count))
    pages_at = 3 + 2 * count
    for lines in pages:
        drawn = "".join(f"({line}) Tj 0 -14 Td " for line in lines)
        stream = f"BT /F1 12 Tf 40 800 Td {drawn}ET".encode()
        parts.append(
            b"<</Type/Page/Parent %d 0 R/MediaBox[0 0 595 842]/Resources<</Font<</F1 2 0 R>>>>"
            b"/Contents %d 0 R>>" % (pages_at, len(parts) + 2)
        )
        parts.append(b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream))
    parts.append(f"<</Type/Pages/Count {count}/Kids[{kids}]>>".encode())
    parts[0] = b"<</Type/Catalog/Pages %d 0 R" % pages_at
    if titles:
        first = len(parts) + 2
        last = first + len(titles) - 1
        parts[0] += b"/Outlines %d 0 R" % (first - 1)
        parts.append(b"<</Type/Outlines/First %d 0 R/Last %d 0 R/Count %d>>" % (first, last, len(titles)))
        for i, title in enumerate(titles):
            following = b"/Next %d 0 R" % (first + i + 1) if first + i < last else b""
            where = (title.encode(), first - 1, 3 + 2 * i, following)
            parts.append(b"<</Title(%s)/Parent %d 0 R/Dest[%d 0 R/Fit]%s>>" % where)
    parts[0] += b">>"
    return _assembled(parts)


def _assembled(parts: Sequence[bytes]) -> bytes:
    out, places = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, part)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(parts) + 1
    head = b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, table)
    return out + head + b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (size, len(out))


def word(parts: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]] = ()) -> bytes:
    """A DOCX of paragraphs, each with its style, and a table at the end."""
    import docx

    document = docx.Document()
    for style, text in parts:
        document.add_paragraph(text, style=style)
    if rows:
        table = document.add_table(len(rows), len(rows[0]))
        for row, texts in zip(table.rows, rows, strict=True):
            for cell, text in zip(row.cells, texts, strict=True):
                cell.text = text
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()
