package panel

import (
	"os"
	"strings"
	"testing"
	"time"

	"gprovision/hw/lcd"
	"gprovision/model/page"
)

// TestPicturesOfThePage: docs/lcd.md shows a running step as the displays do.
func TestPicturesOfThePage(t *testing.T) {
	v := View{Job: "restore", Step: "Writing release", Index: 8, Total: 15,
		Progress: &Progress{Done: 45, Total: 100, Rate: 1, Left: 35 * time.Second}}
	lines := func(m lcd.Model) []string {
		var out []string
		for _, l := range frame(v, m, 0).Lines {
			out = append(out, strings.TrimRight(l, " "))
		}
		return out
	}
	b, err := os.ReadFile("../../docs/lcd.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := "```\n" + strings.Join(lines(lcd.Model635), "\n") + "\n```\n"; !strings.Contains(string(b), want) {
		t.Errorf("the page does not show\n%s", want)
	}
	two := lines(lcd.Model631)
	if want := "the 631 `" + two[0] + "` above `" + two[1] + "`"; !strings.Contains(string(b), want) {
		t.Errorf("the page does not say %s", want)
	}
}

// TestKeysOfThePage: docs/lcd.md says what each key does in a menu.
func TestKeysOfThePage(t *testing.T) {
	rows, err := page.Rows(os.DirFS("../../docs"), "lcd.md", "## On a unit")
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]lcd.Key{
		"up": lcd.KeyUp, "left": lcd.KeyLeft, "down": lcd.KeyDown, "right": lcd.KeyRight, "✓": lcd.KeyEnter, "✗": lcd.KeyExit,
		"upper left": lcd.KeyUL, "lower left": lcd.KeyLL, "upper right": lcd.KeyUR, "lower right": lcd.KeyLR,
	}
	does := map[lcd.Role]string{
		lcd.Previous: "the option before", lcd.Next: "the next option", lcd.Choose: "chooses", lcd.Cancel: "gives up",
	}
	seen := 0
	for _, row := range rows[1:] {
		for _, name := range append(strings.Split(row[0], ", "), row[1]) {
			k, ok := keys[name]
			if seen++; !ok || does[k.Role()] != row[2] {
				t.Errorf("the page says that %s: %s; it is %q", name, row[2], does[k.Role()])
			}
		}
	}
	if seen != len(keys) {
		t.Errorf("the page has %d of %d keys", seen, len(keys))
	}
}

// TestHeldOnADisplay: a unit that stopped with a code is seen from afar: the light swells and fades, and the lamps of a 635 are red.
func TestHeldOnADisplay(t *testing.T) {
	v := View{Problem: &Problem{Code: "G221", Title: "No main disk", Short: "Check the disk", Hint: "check the main disk"}}
	for _, m := range []lcd.Model{lcd.Model631, lcd.Model635} {
		lights := map[int]bool{}
		for at := range 100 {
			f := frame(v, m, time.Duration(at)*100*time.Millisecond)
			lights[f.Backlight] = true
			for i, l := range f.Lamps {
				if l.Red != 100 || l.Green != 0 {
					t.Fatalf("%s: lamp %d is %+v", m, i, l)
				}
			}
		}
		if len(lights) < 5 || len(frame(View{Step: "Network"}, m, 0).Lamps) == 0 || frame(View{Step: "Network"}, m, 0).Lamps[0].Red != 0 {
			t.Errorf("%s: the light is at %v", m, lights)
		}
	}
	if err := page.Says(os.DirFS("../../docs"), "lcd.md", "the light swells and fades, and the lamps of a 635 are red"); err != nil {
		t.Error(err)
	}
}
