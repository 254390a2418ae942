package traffic_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/services/traffic"
)

// picture is red, with a secret green square at 40,40.
func picture() *image.RGBA {
	p := image.NewRGBA(image.Rect(0, 0, 160, 120))
	for y := range 120 {
		for x := range 160 {
			p.Set(x, y, color.RGBA{200, 0, 0, 255})
			if x >= 40 && x < 60 && y >= 40 && y < 60 {
				p.Set(x, y, color.RGBA{0, 200, 0, 255})
			}
		}
	}
	return p
}

func encoded(t testing.TB, format string) []byte {
	t.Helper()
	var b bytes.Buffer
	var err error
	if format == "png" {
		err = png.Encode(&b, picture())
	} else {
		err = jpeg.Encode(&b, picture(), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRedact(t *testing.T) {
	// A comment such as a camera's place, and something behind the end.
	original := encoded(t, "jpeg")
	secret := []byte("lat 24.4539 officer 1177")
	note := append([]byte{0xff, 0xfe, 0, byte(len(secret) + 2)}, secret...)
	original = append(append(append([]byte{}, original[:2]...), note...), original[2:]...)
	original = append(original, secret...)
	for name, in := range map[string][]byte{"jpeg": original, "png": encoded(t, "png")} {
		p, err := traffic.Redact(in, []image.Rectangle{image.Rect(70, 70, 38, 38), image.Rect(150, 100, 900, 900)})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if p.Original != traffic.Digest(in) || p.Digest != traffic.Digest(p.Copy) || p.Width != 160 || p.Height != 120 {
			t.Errorf("%s: %x %x %d %d", name, p.Original, p.Digest, p.Width, p.Height)
		}
		if bytes.Contains(p.Copy, secret) {
			t.Errorf("%s: the copy tells more than the picture", name)
		}
		out, err := jpeg.Decode(bytes.NewReader(p.Copy))
		if err != nil {
			t.Fatal(err)
		}
		for y := range 120 {
			for x := range 160 {
				r, g, b, _ := out.At(x, y).RGBA()
				if g > 0x6000 {
					t.Fatalf("%s: at %d,%d the mask lets %x %x %x through", name, x, y, r, g, b)
				}
			}
		}
		if r, _, _, _ := out.At(10, 10).RGBA(); r < 0xa000 {
			t.Errorf("%s: what is not masked is gone", name)
		}
		if r, _, _, _ := out.At(155, 110).RGBA(); r > 0x4000 {
			t.Errorf("%s: a mask that reaches beyond the picture", name)
		}
	}
}

// bomb is a PNG of 67 bytes that says it has so many pixels.
func bomb(t testing.TB, width, height uint32) []byte {
	b := encoded(t, "png")
	binary.BigEndian.PutUint32(b[16:], width)
	binary.BigEndian.PutUint32(b[20:], height)
	binary.BigEndian.PutUint32(b[29:], crc32.ChecksumIEEE(b[12:29]))
	return b
}

func TestRedactRefuses(t *testing.T) {
	good := encoded(t, "jpeg")
	scans := append([]byte{}, good[:len(good)-2]...)
	for range 200 {
		scans = append(scans, 0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0)
	}
	many := make([]image.Rectangle, 65)
	for i := range many {
		many[i] = image.Rect(0, 0, 1, 1)
	}
	for name, c := range map[string]struct {
		in    []byte
		masks []image.Rectangle
		why   string
	}{
		"nothing":              {nil, nil, ""},
		"a text":               {[]byte("not a picture"), nil, ""},
		"a GIF":                {[]byte("GIF89a\x01\x00\x01\x00\x00\x00\x00;"), nil, ""},
		"too many bytes":       {make([]byte, 16<<20+1), nil, "bytes"},
		"too wide":             {bomb(t, 9000, 1), nil, "pixels"},
		"too many pixels":      {bomb(t, 8192, 8192), nil, "pixels"},
		"more than there are":  {bomb(t, 2147483647, 2147483647), nil, ""},
		"it breaks off":        {encoded(t, "png")[:100], nil, ""},
		"scans":                {scans, nil, "scans"},
		"a mask of elsewhere":  {good, []image.Rectangle{image.Rect(500, 500, 600, 600)}, ""},
		"a mask without area":  {good, []image.Rectangle{image.Rect(5, 5, 5, 9)}, ""},
		"more masks than fit":  {good, many, ""},
		"pixels that are lies": {bomb(t, 400, 400), nil, ""},
	} {
		if p, err := traffic.Redact(c.in, c.masks); !errors.Is(err, traffic.ErrPhoto) {
			t.Errorf("%s: %d bytes, %v", name, len(p.Copy), err)
		} else if c.why != "" && !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v", name, err) // what breaks later has been unpacked before
		}
	}
}

func FuzzRedact(f *testing.F) {
	f.Add(encoded(f, "png"), 0, 0, 10, 10)
	f.Add(encoded(f, "jpeg"), 0, 0, 10, 10)
	f.Add(bomb(f, 1024, 512), 1, 1, 2, 2)
	f.Add([]byte{0xff, 0xd8, 0xff}, -5, 5, 1<<40, 1<<40)
	f.Fuzz(func(t *testing.T, b []byte, x0, y0, x1, y1 int) {
		p, err := traffic.Redact(b, []image.Rectangle{image.Rect(x0, y0, x1, y1)})
		if err != nil {
			return
		}
		if _, err := traffic.Redact(p.Copy, nil); err != nil {
			t.Errorf("the copy is no photograph: %v", err)
		}
	})
}
