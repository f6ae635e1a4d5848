package panel

import "gprovision/hw/console"

// Typed translates the keys of a terminal into those of a panel. It closes its channel when keys is closed.
func Typed(keys <-chan console.Key) <-chan Key {
	out := make(chan Key, 64)
	go func() {
		defer close(out)
		for k := range keys {
			if n, ok := named(k); ok {
				out <- n
				continue
			}
			for _, c := range []byte(string(rune(k))) {
				out <- Key(c)
			}
		}
	}()
	return out
}

func named(k console.Key) (Key, bool) {
	switch k {
	case console.Up:
		return KeyUp, true
	case console.Down, console.Tab:
		return KeyDown, true
	case console.Left:
		return KeyLeft, true
	case console.Right:
		return KeyRight, true
	case console.Enter:
		return KeyEnter, true
	case console.Escape:
		return KeyCancel, true
	case console.Backspace:
		return KeyBackspace, true
	}
	return KeyOther, k < ' '
}
