package lcd

import (
	"strings"
	"time"
	"unicode/utf8"
)

// Step is how long one step of scrolling text lasts.
const Step = time.Second / 2

// steps is how many steps have passed.
func steps(elapsed time.Duration) int { return int(max(0, elapsed) / Step) }

// Wrap breaks text into lines of at most width characters, at blanks where it can. Line feeds are kept.
func Wrap(text string, width int) []string {
	if width < 1 {
		return nil
	}
	var out []string
	for para := range strings.SplitSeq(text, "\n") {
		rest := []rune(strings.TrimRight(para, " "))
		for {
			if len(rest) <= width {
				out = append(out, string(rest))
				break
			}
			cut := width
			for cut > 0 && rest[cut] != ' ' {
				cut--
			}
			if cut == 0 {
				cut = width
			}
			out = append(out, strings.TrimRight(string(rest[:cut]), " "))
			rest = []rune(strings.TrimLeft(string(rest[cut:]), " "))
		}
	}
	return out
}

// Marquee is a text in one line of width characters. What does not fit moves to the left one character each Step, stands at the
// beginning and at the end for three steps (two the first time), and begins again. « and » say that there is more.
func Marquee(text string, width int, elapsed time.Duration) string {
	r := []rune(text)
	if len(r) <= width || width < 1 {
		return pad(text, width)
	}
	final := len(r) - width
	s := (steps(elapsed) + 1) % (final + 5)
	pos := min(max(s-2, 0), final)
	out := append([]rune{}, r[pos:pos+width]...)
	if width > 3 {
		if pos > 0 {
			out[0] = '«'
		}
		if pos < final {
			out[width-1] = '»'
		}
	}
	return string(out)
}

// Scroll shows lines in a window of that many rows. What does not fit moves up one row each four steps; behind the last line the
// window is empty once, then it begins again.
func Scroll(lines []string, rows int, elapsed time.Duration) []string {
	if len(lines) <= rows {
		return lines
	}
	top := steps(elapsed) / 4 % (len(lines) + 1)
	return lines[top:min(top+rows, len(lines))]
}

// Spinner is a character that turns, a step each second, to show that something goes on.
func Spinner(elapsed time.Duration) rune {
	wheel := [...]rune{'|', '/', '-', '\\'}
	return wheel[int(max(0, elapsed)/time.Second)%len(wheel)]
}

// Bar is a bar of width characters that is full at 100 percent.
func Bar(width, percent int) string {
	full := min(max(percent, 0), 100) * width / 100
	return strings.Repeat("█", full) + strings.Repeat(" ", width-full)
}

// pad cuts or fills a text to width characters.
func pad(s string, width int) string {
	n := utf8.RuneCountInString(s)
	if n > width {
		return string([]rune(s)[:max(width, 0)])
	}
	return s + strings.Repeat(" ", width-n)
}

// Between puts one text to the left and one to the right end of a line; the left one is cut where both do not fit.
func Between(left, right string, width int) string {
	n := utf8.RuneCountInString(right)
	if left != "" && n > 0 && n < width {
		n++
		right = " " + right
	}
	return pad(pad(left, width-n)+right, width)
}
