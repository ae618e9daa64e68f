"""What a notebook shows of a prediction."""

import base64
import html
import io

from PIL import Image


def test_a_notebook_shows_the_image_with_its_doubts(fitted, smears, monkeypatch, tmp_path):
    path = tmp_path / "a <b> & c.png"
    Image.fromarray(smears.images[0]).save(path)
    (found,) = fitted.segment([path])
    shown = found._repr_html_()
    photo = base64.b64decode(shown.partition("base64,")[2].partition('"')[0])
    assert Image.open(io.BytesIO(photo)).size == (32, 32)
    assert "a &lt;b&gt; &amp; c.png" in shown
    assert "<b> &" not in shown
    assert f"red cells: {found.count()['red']}" in shown
    for doubt in found.doubts():
        assert f"In doubt: {html.escape(doubt)}" in shown
    (of_array,) = fitted.segment(smears.images[:1] / 255)
    assert "images[0]" in of_array._repr_html_()
    sure = f"mean_confidence={of_array.mean_confidence:.3f}"
    assert repr(of_array) == f"Segmented(0, 32 x 32 pixels, {sure})"
    monkeypatch.setattr("bloodseg.prediction._segmented._SHOWN_PIXELS", 100)
    large = found._repr_html_()
    assert "Large images are not counted here: call count()." in large
    assert "red cells" not in large
