import io

from lightning_poison.report import print_table


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_pipe_gets_plain_aligned_text(example):
    out = io.StringIO()
    print_table(example(title="A run", metrics={"test/acc": 0.5, "val/loss": 2.0, "poison/fitted": 0.5}), out)
    text = out.getvalue()
    assert text.isascii()
    table = text.strip().splitlines()[3:]
    assert [line.split() for line in table] == [
        ["Metric", "Value", "Clean", "twin", "Change"],
        ["Accuracy", "(test)", "50.0", "%", "60.0", "%", "-10.0", "pp"],
        ["Loss", "(validation)", "2.0000", "-", "-"],
        ["Poisons", "fitted", "50.0", "%", "-", "-"],
    ]
    assert len({len(line) for line in table}) == 1


def test_a_terminal_gets_a_table(example):
    out = Terminal()
    print_table(example(title="[bold]A run"), out)
    text = out.getvalue()
    assert "[bold]A run" in text, "titles are not markup"
    assert "36.5 %" in text
    assert "Clean twin" in text
