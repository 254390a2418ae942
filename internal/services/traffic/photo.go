package traffic

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	_ "image/png" // cameras send both
)

// Bounds of a photograph. A picture is looked at before it is unpacked: a few
// hundred bytes can claim to be a picture of gigabytes.
const (
	maxPhoto  = 16 << 20
	maxSide   = 8192
	maxPixels = 16 << 20
	maxMasks  = 64
	maxScans  = 100 // of a progressive JPEG: each goes over the whole picture, and takes a few bytes
	quality   = 85
)

// ErrPhoto is wrapped by every error about a photograph.
var ErrPhoto = errors.New("not a photograph that can be taken")

// Photo is a photograph's copy for people, with the digest of what it was made
// from.
type Photo struct {
	Original [32]byte // SHA-256
	Digest   [32]byte // of Copy
	Copy     []byte   // JPEG, without the original's metadata
	Width    int
	Height   int
}

// Digest is how a photograph is named.
func Digest(b []byte) [32]byte { return sha256.Sum256(b) }

// Redact makes the copy that a holder or a nominee sees: masked rectangles
// (passengers, other plates) are painted over, and everything is encoded anew,
// so that no metadata, no thumbnail and nothing behind the picture's end comes
// along. Rectangles reach beyond the picture, but not all of them lie outside
// it: a mask that covers nothing was meant for another picture. It takes up to
// 130 MB while it works.
func Redact(original []byte, masks []image.Rectangle) (Photo, error) {
	if len(original) > maxPhoto {
		return Photo{}, fmt.Errorf("%w: %d bytes; at most %d", ErrPhoto, len(original), maxPhoto)
	}
	if len(masks) > maxMasks {
		return Photo{}, fmt.Errorf("%w: more than %d masks", ErrPhoto, maxMasks)
	}
	head, format, err := image.DecodeConfig(bytes.NewReader(original))
	if err != nil || format != "jpeg" && format != "png" {
		return Photo{}, fmt.Errorf("%w: neither JPEG nor PNG", ErrPhoto)
	}
	if head.Width < 1 || head.Height < 1 || head.Width > maxSide || head.Height > maxSide || head.Width*head.Height > maxPixels {
		return Photo{}, fmt.Errorf("%w: %d by %d pixels; at most %d on a side and %d in all", ErrPhoto, head.Width, head.Height, maxSide, maxPixels)
	}
	if bytes.Count(original, []byte{0xff, 0xda}) > maxScans {
		return Photo{}, fmt.Errorf("%w: more than %d scans", ErrPhoto, maxScans)
	}
	in, _, err := image.Decode(bytes.NewReader(original))
	if err != nil {
		return Photo{}, fmt.Errorf("%w: it breaks off or is damaged", ErrPhoto)
	}
	out := image.NewRGBA(image.Rect(0, 0, in.Bounds().Dx(), in.Bounds().Dy()))
	draw.Draw(out, out.Bounds(), image.NewUniform(color.White), image.Point{}, draw.Src) // beneath what is transparent
	draw.Draw(out, out.Bounds(), in, in.Bounds().Min, draw.Over)
	for _, m := range masks {
		if m = m.Canon().Intersect(out.Bounds()); m.Empty() {
			return Photo{}, fmt.Errorf("%w: a mask lies outside it", ErrPhoto)
		}
		draw.Draw(out, m, image.NewUniform(color.Black), image.Point{}, draw.Src)
	}
	var copied bytes.Buffer
	if err := jpeg.Encode(&copied, out, &jpeg.Options{Quality: quality}); err != nil {
		return Photo{}, fmt.Errorf("%w: encoding it anew", ErrPhoto)
	}
	return Photo{Digest(original), Digest(copied.Bytes()), copied.Bytes(), out.Bounds().Dx(), out.Bounds().Dy()}, nil
}
